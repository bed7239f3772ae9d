"""CIFAR from a TensorFlow Datasets directory, read without TensorFlow."""

import functools
import os

import numpy as np
import tensorflow_datasets as tfds

from gatprune_jax.data.splits import Dataset, Pixels, Sizes, Split, cut_in_four
from gatprune_jax.errors import InputError

# ImageNet's statistics: published CIFAR checkpoints were trained with them too.
_PIXELS = Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_SIDE = 32


def cifar(name: str, seed: int, directory: str, sizes: Sizes) -> Dataset:
  """`cifar10` or `cifar100` as uint8 images `[32, 32, 3]`, cut by the seed.

  Train, reward and select are cut from the training images.

  Args:
    name: of the TFDS data set.
    seed: of the cuts.
    directory: the TFDS data directory, which holds NAME/VERSION/ in array_record format.
    sizes: of the four parts.

  Raises:
    InputError: where the directory has no such data set, or in a format that needs TensorFlow, or a
      class has too few images for the parts.
  """
  train, test, num_classes = _read(name, directory)
  return Dataset(name, num_classes, *cut_in_four(train, test, sizes, seed), _PIXELS)


@functools.lru_cache(maxsize=2)
def _read(name: str, directory: str) -> tuple[Split, Split, int]:
  """Training and test images, and the number of classes."""
  prepare = (
    f"prepare it with tfds.builder({name!r}, data_dir=DIR, file_format='array_record')"
    ".download_and_prepare()"
  )
  if not os.path.isdir(os.path.join(directory, name)):
    raise InputError(f"data directory {directory!r} has no folder {name!r}: {prepare}")
  builder = tfds.builder(name, data_dir=directory)
  if not os.path.isdir(builder.data_dir):
    raise InputError(
      f"{builder.data_dir} is missing, which holds {builder.info.full_name}: {prepare}"
    )
  try:
    sources = [builder.as_data_source(split) for split in ("train", "test")]
  except NotImplementedError as error:
    raise InputError(
      f"{builder.data_dir} is in the format {builder.info.file_format.value}, which needs "
      f"TensorFlow to be read: {prepare}"
    ) from error
  train, test = (_arrays(source) for source in sources)
  return train, test, builder.info.features["label"].num_classes


def _arrays(source) -> Split:
  x = np.empty((len(source), _SIDE, _SIDE, 3), np.uint8)
  y = np.empty(len(source), np.int32)
  for index, example in enumerate(source):
    x[index], y[index] = example["image"], example["label"]
  return Split(x, y)
