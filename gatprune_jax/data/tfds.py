"""Loads CIFAR and ImageNet from a TensorFlow Datasets directory, without TensorFlow."""

import functools
import os

from absl import logging
import numpy as np
import tensorflow_datasets as tfds

from gatprune_jax.data.data_config import DataConfig
from gatprune_jax.data.encoded_files import READING_ERRORS, Unreadable, check_label, read_all
from gatprune_jax.data.photographs import Photographs
from gatprune_jax.data.splits import IMAGENET_PIXELS, Dataset, Split, cut_in_four
from gatprune_jax.errors import InputError
from gatprune_jax.runtime.whole_files import whole_file

_CIFAR_SHAPE = (32, 32, 3)
_IMAGENET_SIDE = 224
_NO_LABEL = -1  # stands for the label of a record that cannot be read


class TfdsFiles:
  """The encoded images of one split, with their labels."""

  def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
    """Opens the split.

    Raises:
      InputError: if the directory has no such split, is in a format that needs TensorFlow, or is
        damaged.
    """
    self.directory = str(builder.data_dir)
    self._split = split
    try:
      self._source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
      self._num = len(self._source)
    except NotImplementedError as error:
      raise InputError(
        f"{self.directory} is in the format {builder.info.file_format.value}, which needs "
        f"TensorFlow to be read: {_how_to_prepare(builder.name)}"
      ) from error
    except (*READING_ERRORS, KeyError) as error:
      why = " ".join(str(error).split())
      raise InputError(f"split {split} in {self.directory} cannot be opened: {why}") from error

  def __len__(self) -> int:
    """Returns the number of records."""
    return self._num

  def read(self, index: int) -> tuple[bytes, int]:
    """Returns the encoded image and its label."""
    example = self._source[index]
    return example["image"], int(example["label"])

  def name(self, index: int) -> str:
    """Returns a name with the record's number, its split and the directory."""
    return f"record {index} of split {self._split} in {self.directory}"


def cifar(config: DataConfig, seed: int) -> Dataset:
  """Loads `cifar10` or `cifar100` as uint8 images `[32, 32, 3]` in memory, cut by the seed.

  The parts train, reward and select are cut from the training images; the test part is the data
  set's own test images, or as many of them as are configured.

  Raises:
    InputError: if the directory has no such data set, or has it in a format that needs TensorFlow,
      if the data set is damaged, or if a class has too few images for the parts.
  """
  config.check_side(_CIFAR_SHAPE[0])
  train, test, num_classes = _cifar_in_memory(
    config.dataset, config.data_dir, config.unreadable_images
  )
  parts = cut_in_four(train, test, config.images, seed)
  return Dataset(config.dataset, num_classes, *parts, IMAGENET_PIXELS)


@functools.lru_cache(maxsize=2)
def _cifar_in_memory(name: str, directory: str, allowed: int) -> tuple[Split, Split, int]:
  """Returns training images, test images, and the number of classes."""
  builder = _builder(name, directory)
  num_classes, unreadable = builder.info.features["label"].num_classes, Unreadable(allowed)
  read = lambda split: read_all(TfdsFiles(builder, split), num_classes, unreadable, _CIFAR_SHAPE)
  return Split(*read("train")), Split(*read("test")), num_classes


def imagenet(config: DataConfig, seed: int) -> Dataset:
  """Loads `imagenet2012`; images of train and test are read from disk only when they are needed.

  The parts train, reward and select are cut from the training images, and the test part is the
  validation split of ImageNet. The cuts need all labels, so all records are read once; the labels
  are then saved in the same directory if it is writable.

  Raises:
    InputError: see `cifar`.
  """
  builder = _builder(config.dataset, config.data_dir)
  num_classes, unreadable = (
    builder.info.features["label"].num_classes,
    Unreadable(config.unreadable_images),
  )
  side = config.image_size or _IMAGENET_SIDE

  def split(name: str) -> Split:
    files = TfdsFiles(builder, name)
    path = os.path.join(files.directory, f"labels-{name}.npy")
    labels = _labels(files, path, num_classes, unreadable)
    everything = Split(Photographs(files, labels, side, unreadable), labels)
    return everything.subset(np.flatnonzero(labels != _NO_LABEL))

  parts = cut_in_four(split("train"), split("validation"), config.images, seed)
  return Dataset(config.dataset, num_classes, *parts, IMAGENET_PIXELS).with_scored_in_memory()


def _labels(files: TfdsFiles, path: str, num_classes: int, unreadable: Unreadable) -> np.ndarray:
  """Returns labels int32 `[n]` of all records, `_NO_LABEL` for records that cannot be read."""
  if (labels := _kept_labels(path, len(files), num_classes)) is not None:
    for index in np.flatnonzero(labels == _NO_LABEL):
      unreadable.report(files.name(index), "the record is damaged")
    return labels
  logging.warning("reading %d labels, once: they are kept in %s", len(files), path)
  labels = np.empty(len(files), np.int32)
  for index in range(len(files)):
    try:
      _, label = files.read(index)
    except READING_ERRORS as error:
      unreadable.report(files.name(index), error)
      labels[index] = _NO_LABEL
    else:
      labels[index] = check_label(label, num_classes, files.name(index))
  try:
    with whole_file(path) as file:
      np.save(file, labels)
  except OSError as error:
    logging.warning("%s cannot be written (%s): they will be read again", path, error.strerror)
  return labels


def _kept_labels(path: str, num: int, num_classes: int) -> np.ndarray | None:
  """Returns the labels that `_labels` saved; None if there is no file, or if it does not fit."""
  if not os.path.exists(path):
    return None
  try:
    with open(path, "rb") as file:
      labels = np.lib.format.read_array(file, allow_pickle=False)
  except Exception as error:  # a damaged file can raise any exception
    logging.warning("%s cannot be read: %s", path, error)
    return None
  fits = labels.shape == (num,) and labels.dtype == np.int32
  if not fits or np.any((labels < _NO_LABEL) | (labels >= num_classes)):
    logging.warning("%s does not hold the labels of %d records", path, num)
    return None
  return labels


def _builder(name: str, directory: str) -> tfds.core.DatasetBuilder:
  """Returns the builder that TensorFlow Datasets has for a prepared data set."""
  if not os.path.isdir(os.path.join(directory, name)):
    raise InputError(
      f"data directory {directory!r} has no folder {name!r}: {_how_to_prepare(name)}"
    )
  builder = tfds.builder(name, data_dir=directory)
  if not os.path.isdir(builder.data_dir):
    raise InputError(
      f"{builder.data_dir}, which holds {builder.info.full_name}, is missing: "
      f"{_how_to_prepare(name)}"
    )
  return builder


def _how_to_prepare(name: str) -> str:
  call = (
    f"prepare it with tfds.builder({name!r}, data_dir=DIR, file_format='array_record')"
    ".download_and_prepare()"
  )
  archives = "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar"
  manual = f", with {archives} of image-net.org in DIR/downloads/manual"
  return call + (manual if name == "imagenet2012" else "")
