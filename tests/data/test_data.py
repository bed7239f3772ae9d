"""Tests of splits and augmentation."""

import dataclasses

import jax
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.data import DIGITS, Split, cut, load_dataset, random_flip, random_shift

PARTS = ("train", "reward", "select", "test")


def rows(split):
  return {image.tobytes() for image in split.x}


def test_digits_are_cut_into_disjoint_balanced_parts():
  data = load_dataset()
  parts = [getattr(data, name) for name in PARTS]
  assert [len(part.y) for part in parts] == [697, 400, 300, 400]
  assert len(set().union(*map(rows, parts))) == sum(len(rows(part)) for part in parts)
  for part in parts:
    share = np.bincount(part.y, minlength=10) / len(part.y)
    np.testing.assert_allclose(share, 0.1, atol=0.015)
    assert part.x.dtype == np.float32
    assert part.x.shape[1:] == (8, 8, 1)
    assert -1 <= part.x.min() < part.x.max() <= 1


def test_splits_follow_the_seed():
  one, same, other = (load_dataset(DIGITS, seed) for seed in (3, 3, 4))
  for name in PARTS:
    np.testing.assert_array_equal(getattr(one, name).x, getattr(same, name).x)
    assert not np.array_equal(getattr(one, name).x, getattr(other, name).x)


def test_images_keep_their_labels():
  split = Split(np.arange(20.0).reshape(20, 1, 1, 1), np.arange(20) % 2)
  for part in cut(split, 7, seed=1):
    np.testing.assert_array_equal(part.x[:, 0, 0, 0] % 2, part.y)


def test_bad_requests_are_refused():
  with pytest.raises(gp.InputError, match="'mnist' is unknown: choose one of cifar10,"):
    load_dataset(dataclasses.replace(DIGITS, dataset="mnist"))
  split = Split(np.zeros((20, 1, 1, 1)), np.arange(20) % 4)
  for first in (0, 20):
    with pytest.raises(gp.InputError, match=f"cannot cut {first} of 20"):
      cut(split, first, 0)


def test_a_part_of_all_that_are_left_is_all_of_them():
  sized = lambda **sizes: dataclasses.replace(
    DIGITS, images=dataclasses.replace(DIGITS.images, **sizes)
  )
  whole, same = load_dataset(), load_dataset(sized(train=697))
  np.testing.assert_array_equal(same.train.x, whole.train.x)
  for part, size in {"train": 698, "reward": 1097, "select": 0, "test": 1797}.items():
    with pytest.raises(gp.InputError, match=rf"images\.{part} is {size}: cannot cut {size} of"):
      load_dataset(sized(**{part: size}))


def test_parts_smaller_than_the_number_of_classes_are_drawn_without_regard_to_them():
  split = Split(np.arange(20.0).reshape(20, 1, 1, 1), np.arange(20) % 4)
  small, rest = cut(split, 3, 0)
  assert sorted(np.concatenate([small.x, rest.x]).ravel()) == list(range(20))
  assert len(small.y) == 3


def test_a_class_of_one_image_is_in_one_of_the_parts():
  split = Split(np.arange(9.0).reshape(9, 1, 1, 1), np.array([0] * 4 + [1] * 4 + [2]))
  parts = cut(split, 4, 0)
  assert [len(part.y) for part in parts] == [4, 5]
  assert sorted(np.concatenate([part.x for part in parts]).ravel()) == list(range(9))


def test_random_flip_mirrors_about_half_of_the_images():
  x = np.random.default_rng(0).random((400, 3, 4, 2)).astype(np.float32)
  flipped = np.asarray(random_flip(jax.random.key(0), x))
  same = [np.array_equal(a, b) for a, b in zip(x, flipped, strict=True)]
  mirrored = [np.array_equal(a[:, ::-1], b) for a, b in zip(x, flipped, strict=True)]
  assert np.array_equal(same, ~np.array(mirrored))
  assert abs(np.mean(same) - 0.5) < 0.125  # five standard deviations for 400 fair coins


def test_random_shift_moves_whole_images_with_repeated_edges():
  x = np.random.default_rng(0).random((40, 5, 6, 2)).astype(np.float32)
  shifted = np.asarray(random_shift(jax.random.key(0), x, 1))
  seen = set()
  for image, moved in zip(x, shifted, strict=True):
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    places = [
      (i, j) for i in range(3) for j in range(3)
      if np.array_equal(padded[i : i + 5, j : j + 6], moved)
    ]  # fmt: skip
    assert len(places) == 1
    seen.add(places[0])
  assert len(seen) == 9
  np.testing.assert_array_equal(random_shift(jax.random.key(0), x, 0), x)
