"""Tests of `data.arrays`, which divides a user's arrays into four parts."""

import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.data import Sizes

X = np.arange(400.0).reshape(100, 4)
Y = np.arange(100) % 4


def parts(data):
  return [data.train, data.reward, data.select, data.test]


def test_every_example_is_in_one_part_and_classes_are_balanced():
  data = gp.data.arrays(X, Y, seed=3)
  assert [part.num for part in parts(data)] == [45, 20, 15, 20]
  rows = np.concatenate([part.x[:, 0] for part in parts(data)])
  np.testing.assert_array_equal(np.sort(rows), X[:, 0])
  for part in parts(data):
    np.testing.assert_array_equal(part.y, part.x[:, 0] // 4 % 4)  # targets stay with their inputs
  assert np.ptp(np.bincount(data.reward.y)) <= 1
  other = gp.data.arrays(X, Y, seed=4)
  assert (other.train.x != data.train.x).any()
  np.testing.assert_array_equal(gp.data.arrays(X, Y, seed=3).train.x, data.train.x)


def test_what_was_trained_on_is_not_what_judges():
  data = gp.data.arrays(X, Y, train=(-X, Y))
  np.testing.assert_array_equal(data.train.x, -X)
  assert [part.num for part in parts(data)[1:]] == [65, 15, 20]
  assert all((part.x >= 0).all() for part in parts(data)[1:])
  data = gp.data.arrays(X, Y, test=(X[:7] + 1000, Y[:7]), sizes=Sizes(reward=10, select=5))
  assert [part.num for part in parts(data)] == [85, 10, 5, 7]
  assert (data.test.x >= 1000).all()


def test_targets_are_any_tree_of_arrays():
  y = {"box": X[:, :2], "label": list(range(100))}
  y["label"] = np.array(y["label"])
  data = gp.data.arrays(X, y)
  for part in parts(data):
    np.testing.assert_array_equal(part.y["box"], part.x[:, :2])
    np.testing.assert_array_equal(part.y["label"], part.x[:, 0] // 4)
  assert data.train.y["box"].dtype == np.float32
  assert data.train.y["label"].dtype == np.int32
  assert gp.data.arrays(X, list(Y)).train.y.dtype == np.int32


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    ((X, Y[:50]), r"y has shape \(50,\) and x \(100, 4\): both must begin with the same number"),
    ((X[:, 0], Y), r"x has shape \(100,\): it must be \[n, ...\]"),
    ((X.astype(object), Y), "x is of dtype object"),
    ((np.array(["a"] * 100)[:, None], Y), "x is of dtype <U1"),
    ((np.where(X == 5, np.inf, X), Y), "x holds values that are NaN or infinite"),
    ((X, Y + 2**40), "y holds integers beyond 32 bits: the largest is 10995"),
    ((X, {}), "y holds no array"),
  ],
)
def test_arrays_that_do_not_serve_are_refused(arguments, words):
  with pytest.raises(gp.InputError, match=words):
    gp.data.arrays(*arguments)


def test_parts_that_do_not_serve_are_refused():
  with pytest.raises(gp.InputError, match="test x and y are of the form"):
    gp.data.arrays(X, Y, test=(X[:, :2], Y))
  with pytest.raises(gp.InputError, match=r"train is no pair: give train=\(x, y\)"):
    gp.data.arrays(X, Y, train=X)
  with pytest.raises(gp.InputError, match=r"images.reward is 100: cannot cut 100 of 65 images off"):
    gp.data.arrays(X, Y, sizes=Sizes(reward=100, select=15, test=20))
