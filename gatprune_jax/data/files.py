"""Labelled image files, wherever they are kept, and those among them that cannot be read."""

from collections.abc import Sequence
from typing import Protocol

from absl import logging
import numpy as np

from gatprune_jax.data.decoding import DECODING_ERRORS, decode
from gatprune_jax.errors import InputError

# What reading and decoding raise on damaged files; array_record raises RuntimeError.
READING_ERRORS = (*DECODING_ERRORS, RuntimeError)


class Files(Protocol):
  """Encoded images and their labels, readable in any order and from several threads."""

  def __len__(self) -> int:
    """How many there are."""

  def read(self, index: int) -> tuple[bytes, int]:
    """The encoded image and its label."""

  def name(self, index: int) -> str:
    """What people know the file by, whether or not it can be read."""


class Unreadable:
  """Counts the files that cannot be read, and refuses more than are allowed."""

  def __init__(self, allowed: int):
    if allowed < 0:
      raise InputError(f"unreadable_images is {allowed}: it must not be negative")
    self._allowed, self._names = allowed, {}

  def report(self, name: str, why: object) -> None:
    """Takes note of a file, once.

    Raises:
      InputError: where there are more than allowed.
    """
    if name in self._names:
      return
    self._names[name] = why
    told = f"{name} cannot be read: {' '.join(str(why).split())}"
    if len(self._names) > self._allowed:
      raise InputError(
        f"{told}. That makes {len(self._names)}, and unreadable_images allows {self._allowed}: "
        "replace what is damaged, or allow more"
      )
    logging.warning("%s; %d of %d allowed", told, len(self._names), self._allowed)


def check_label(label: int, num_classes: int, name: str) -> int:
  """Returns the label.

  Raises:
    InputError: where there is no such class.
  """
  if not 0 <= label < num_classes:
    raise InputError(
      f"{name} has label {label}, which is out of range: labels are 0 to {num_classes - 1}"
    )
  return label


def read_all(
  files: Files, num_classes: int, unreadable: Unreadable, shape: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Decodes all files into memory, without those that cannot be read.

  Args:
    files: where from; one at least.
    num_classes: labels are below it.
    unreadable: takes note of what is left out.
    shape: `[H, W, 3]` of every image; None: that of the first.

  Returns:
    Images uint8 `[n, H, W, 3]` and labels int32 `[n]`.

  Raises:
    InputError: for an image of another shape, a label out of range, or too many unreadable files.
  """
  images, labels = [], []
  for index in range(len(files)):
    name = files.name(index)
    try:
      file, label = files.read(index)
      image = decode(file)
    except READING_ERRORS as error:
      unreadable.report(name, error)
      continue
    shape = image.shape if shape is None else tuple(shape)
    if image.shape != shape:
      raise InputError(f"{name} has shape {image.shape}, not {shape} as the others")
    images.append(image)
    labels.append(check_label(label, num_classes, name))
  if not images:
    raise InputError(f"none of {len(files)} files can be read, {files.name(0)} and so on")
  return np.stack(images), np.array(labels, np.int32)
