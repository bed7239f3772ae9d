"""Loads a user's own image files, which lie in one folder for each class."""

from collections.abc import Sequence
import os

import numpy as np

from gatprune_jax.data.data_config import DataConfig
from gatprune_jax.data.encoded_files import Unreadable, read_all
from gatprune_jax.data.photographs import Photographs
from gatprune_jax.data.splits import (
  IMAGENET_PIXELS,
  Dataset,
  Split,
  cut_in_four,
  measure_pixels,
)
from gatprune_jax.errors import InputError

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_TEST_FOLDERS = ("test", "val", "validation")


class FolderFiles:
  """Image files `DIRECTORY/CLASS/FILE`, in the order of their names."""

  def __init__(self, directory: str, classes: Sequence[str]):
    """Lists the files.

    Args:
      directory: directory with one folder for each class.
      classes: names of the class folders; a class's label is its position.

    Raises:
      InputError: if there is a folder of another class, or a class without images.
    """
    if unknown := sorted(set(_folders(directory)) - set(classes)):
      raise InputError(
        f"{os.path.join(directory, unknown[0])} is a class without training images: the classes "
        f"are {', '.join(classes)}"
      )
    self._files: list[tuple[str, int]] = []
    for label, name in enumerate(classes):
      folder = os.path.join(directory, name)
      found = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
      paths = [os.path.join(folder, f) for f in found if f.lower().endswith(_EXTENSIONS)]
      if not paths:
        raise InputError(f"{folder} has no images: they end in {', '.join(_EXTENSIONS)}")
      self._files += [(path, label) for path in paths]

  @property
  def labels(self) -> np.ndarray:
    """Labels of all files, int32 `[n]`."""
    return np.array([label for _, label in self._files], np.int32)

  def __len__(self) -> int:
    """Returns the number of files."""
    return len(self._files)

  def read(self, index: int) -> tuple[bytes, int]:
    """Returns the encoded image and its label."""
    path, label = self._files[index]
    with open(path, "rb") as file:
      return file.read(), label

  def name(self, index: int) -> str:
    """Returns the path."""
    return self._files[index][0]


def folder(config: DataConfig, seed: int) -> Dataset:
  """Loads image files in one folder for each class, cut into parts by the seed.

  The directory `data_dir` holds either the class folders, or a folder `train` and perhaps one of
  `test`, `val` and `validation`, each with the class folders. Without a folder of test images, the
  test part is cut from the training images.

  If `image_size` is not 0, the files are photographs of any size. They are cropped when they are
  read, and scaled by ImageNet's mean and standard deviation. If it is 0, all images must have one
  size. They are held in memory, and scaled by the mean and standard deviation of the training part.

  Raises:
    InputError: if there are no such folders, if images that must have one size have several, or if
      a class has too few images for the parts.
  """
  directory = config.data_dir
  if os.path.isfile(directory):
    raise InputError(f"data_dir {directory!r} is a file: give a directory with a folder a class")
  if not os.path.isdir(directory):
    raise InputError(f"data directory {directory!r} is missing: it holds a folder for each class")
  inside = _folders(directory)
  train_directory = os.path.join(directory, "train") if "train" in inside else directory
  classes = _folders(train_directory)
  if len(classes) < 2:
    raise InputError(
      f"{train_directory} has {len(classes)} folders: it needs one for each of two or more classes"
    )
  train = FolderFiles(train_directory, classes)
  held_out = [name for name in _TEST_FOLDERS if "train" in inside and name in inside]
  test = FolderFiles(os.path.join(directory, held_out[0]), classes) if held_out else None
  unreadable = Unreadable(config.unreadable_images)
  if config.image_size:
    crops = lambda files: Split(
      Photographs(files, files.labels, config.image_size, unreadable), files.labels
    )
    images, test_images = crops(train), crops(test) if test else None
    parts = cut_in_four(images, test_images, config.images, seed, classes)
    return Dataset("folder", len(classes), *parts, IMAGENET_PIXELS).with_scored_in_memory()
  images = Split(*read_all(train, len(classes), unreadable))
  shape = images.x.shape[1:]
  test_images = Split(*read_all(test, len(classes), unreadable, shape)) if test else None
  parts = cut_in_four(images, test_images, config.images, seed, classes)
  return Dataset("folder", len(classes), *parts, measure_pixels(parts[0].x))


def _folders(directory: str) -> list[str]:
  """Returns the sorted names of a directory's folders.

  Hidden folders are left out, because other programs create them.
  """
  with os.scandir(directory) as entries:
    return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
