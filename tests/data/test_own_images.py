"""Tests of data sets of a user's own images: npz files and folders."""

import dataclasses
import os

import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.data import DataConfig, Photographs, Sizes, load_dataset
from tests.data.directories import photograph

SIZES = Sizes(train=0, reward=6, select=6, test=6)


def arrays(num=30, **changes):
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (num, 5, 4, 3), np.uint8)
  return {"x": x, "y": np.arange(num) % 3} | changes


@pytest.fixture
def load_npz(tmp_path):
  def load(stored, sizes=SIZES):
    path = str(tmp_path / "images.npz")
    np.savez(path, **stored)
    return load_dataset(DataConfig("npz", path, sizes))

  return load


def test_npz_in_four_parts(load_npz):
  stored = arrays()
  data = load_npz(stored)
  assert (data.name, data.num_classes) == ("npz", 3)
  assert [len(part.y) for part in data[2:6]] == [12, 6, 6, 6]
  labels = {image.tobytes(): label for image, label in zip(stored["x"], stored["y"], strict=True)}
  for part in data[2:6]:
    assert [labels[image.tobytes()] for image in part.x] == part.y.tolist()
  scaled = np.asarray(data.pixels(data.train.x))
  np.testing.assert_allclose(scaled.mean((0, 1, 2)), 0, atol=1e-5)
  np.testing.assert_allclose(scaled.std((0, 1, 2)), 1, rtol=1e-5)


def test_npz_with_test_images_and_without_colours(load_npz):
  grey = arrays(x=np.random.default_rng(1).random((30, 5, 4), np.float32))
  data = load_npz(
    grey | {"x_test": grey["x"][:9], "y_test": grey["y"][:9]}, dataclasses.replace(SIZES, test=0)
  )
  assert [len(part.y) for part in data[2:6]] == [18, 6, 6, 9]
  assert data.pixels is None
  np.testing.assert_array_equal(data.test.x[..., 0], grey["x"][:9])


REFUSED = {
  "no labels": ({"x": arrays()["x"]}, "has no array 'y', only x"),
  "float64": (arrays(x=np.zeros((30, 5, 4, 3))), r"shape \(30, 5, 4, 3\) and dtype float64"),
  "flat": (arrays(x=np.zeros((30, 60), np.uint8)), r"must be \[n, H, W, C\] or"),
  "not finite": (arrays(x=np.full((30, 2, 2), np.nan, np.float32)), "not finite"),
  "label count": (arrays(y=np.zeros(29, int)), "one integer for each of the 30 images"),
  "label type": (arrays(y=np.zeros(30)), "dtype float64: it must hold one integer"),
  "negative label": (arrays(y=np.arange(30) % 3 - 1), "label -1: labels are 0, 1, 2"),
  "large label": (arrays(y=np.arange(30) % 3 + 2**32), "label 4294967296: labels are 0, 1, 2"),
  "gap": (arrays(y=np.arange(30) % 2 * 2), "no image of class 1, but one of class 2"),
  "gap as wide as memory": (
    arrays(y=np.arange(30) % 2 * (2**31 - 1)),
    "no image of class 1, but one of class 2147483647",
  ),
  "one class": (arrays(y=np.zeros(30, int)), "has one class: it needs two or more"),
  "rare class": (
    arrays(y=np.arange(30) // 29),
    "class 1 has 1 images: train, reward, select, test",
  ),
  "test shape": (
    arrays(x_test=np.zeros((9, 5, 5, 3), np.uint8), y_test=np.arange(9) % 3),
    r"x_test .* has images \(5, 5, 3\) uint8, not \(5, 4, 3\) uint8",
  ),
  "test label": (
    arrays(x_test=np.zeros((9, 5, 4, 3), np.uint8), y_test=np.full(9, 3)),
    "y_test .* label 3, which is out of range: labels are 0 to 2",
  ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_npz_that_does_not_fit_is_refused(case, load_npz):
  stored, words = REFUSED[case]
  with pytest.raises(gp.InputError, match=words):
    load_npz(stored)


def test_no_npz_file_is_refused(tmp_path):
  for content in (None, b"", b"PK\x03\x04 damaged"):
    path = tmp_path / "images.npz"
    if content is not None:
      path.write_bytes(content)
    with pytest.raises(gp.InputError, match="is not a readable npz file"):
      load_dataset(DataConfig("npz", str(path), SIZES))


def test_images_none_of_which_can_be_read_are_refused(tmp_path):
  write_folder(tmp_path, (8, 6))
  for path in tmp_path.rglob("*.png"):
    os.truncate(path, 20)
  with pytest.raises(gp.InputError, match=r"none of 20 files can be read, .*\.png and so on"):
    load_dataset(folder(tmp_path, unreadable_images=20))


def write_folder(directory, size, per_class=10, classes=("cat", "dog")):
  for label, name in enumerate(classes):
    os.makedirs(directory / name)
    for index in range(per_class):
      image = photograph(2 * index + label, size)
      image.save(directory / name / f"{index}.png")


def folder(directory, **changes):
  config = DataConfig("folder", str(directory), Sizes(0, 4, 4, 4))
  return dataclasses.replace(config, **changes)


def test_a_folder_of_one_size_is_held_in_memory(tmp_path):
  write_folder(tmp_path / "all", (8, 6))
  data = load_dataset(folder(tmp_path / "all"))
  assert (data.name, data.num_classes) == ("folder", 2)
  assert [len(part.y) for part in data[2:6]] == [8, 4, 4, 4]
  labels = {np.asarray(photograph(i, (8, 6))).tobytes(): i % 2 for i in range(20)}
  for part in data[2:6]:
    assert [labels[image.tobytes()] for image in part.x] == part.y.tolist()


def test_hidden_folders_are_no_classes(tmp_path):
  write_folder(tmp_path, (8, 6))
  (tmp_path / ".ipynb_checkpoints").mkdir()
  assert load_dataset(folder(tmp_path)).num_classes == 2


def test_a_folder_of_photographs_is_read_when_needed(tmp_path):
  write_folder(tmp_path / "train", None)
  write_folder(tmp_path / "val", None, per_class=2)
  data = load_dataset(folder(tmp_path, image_size=12, images=Sizes(0, 4, 4, 0)))
  assert [part.x.shape for part in data[2:6]] == [(n, 12, 12, 3) for n in (12, 4, 4, 4)]
  assert isinstance(data.train.x, Photographs)
  assert data.test.y.tolist() == [0, 0, 1, 1]


def test_folders_that_do_not_fit_are_refused(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(gp.InputError, match="file' is a file: give a directory with a folder a cla"):
    load_dataset(folder(tmp_path / "file"))
  with pytest.raises(gp.InputError, match="is missing: it holds a folder for each class"):
    load_dataset(folder(tmp_path / "nowhere"))
  with pytest.raises(gp.InputError, match="has 0 folders: it needs one for each of two or more"):
    load_dataset(folder(tmp_path))
  write_folder(tmp_path / "train", (8, 6))
  write_folder(tmp_path / "test", (8, 6), classes=("cat", "dog", "emu"))
  with pytest.raises(gp.InputError, match="emu is a class without training images"):
    load_dataset(folder(tmp_path))
  os.rename(tmp_path / "test" / "emu", tmp_path / "emu")
  photograph(0, (9, 6)).save(tmp_path / "train" / "dog" / "large.png")
  with pytest.raises(gp.InputError, match=r"large\.png has shape \(6, 9, 3\), not \(6, 8, 3\)"):
    load_dataset(folder(tmp_path))
  os.truncate(tmp_path / "train" / "dog" / "large.png", 60)
  with pytest.raises(gp.InputError, match=r"large\.png cannot be read: .*unreadable_images allows"):
    load_dataset(folder(tmp_path))
  data = load_dataset(folder(tmp_path, unreadable_images=1, images=Sizes(0, 4, 4, 0)))
  assert len(data.train.y) == 12
  for name in os.listdir(tmp_path / "train" / "cat")[1:]:
    os.remove(tmp_path / "train" / "cat" / name)
  with pytest.raises(
    gp.InputError, match="class 'cat' has 1 images: train, reward, select are cut"
  ):
    load_dataset(folder(tmp_path, unreadable_images=1))
  os.remove(tmp_path / "train" / "cat" / os.listdir(tmp_path / "train" / "cat")[0])
  with pytest.raises(gp.InputError, match="cat has no images: they end in"):
    load_dataset(folder(tmp_path, unreadable_images=1))
