"""Reads labelled image files of any source, and counts the files that cannot be read.

A few damaged files are tolerated with a warning; more than the configured number are refused.
"""

from collections.abc import Sequence
from typing import Protocol

from absl import logging
import numpy as np

from gatprune_jax.data.decoding import DECODING_ERRORS, decode
from gatprune_jax.errors import InputError

# Exceptions that reading or decoding damaged files raises; array_record raises RuntimeError.
READING_ERRORS = (*DECODING_ERRORS, RuntimeError)


class Files(Protocol):
  """Encoded images and their labels, which can be read in any order and from several threads."""

  def __len__(self) -> int:
    """Returns the number of files."""

  def read(self, index: int) -> tuple[bytes, int]:
    """Returns the encoded image and its label."""

  def name(self, index: int) -> str:
    """Returns a name for messages, such as the path, even if the file cannot be read."""


class Unreadable:
  """Counts the files that cannot be read, and refuses more of them than are allowed."""

  def __init__(self, allowed: int):
    if allowed < 0:
      raise InputError(f"unreadable_images is {allowed}: it must not be negative")
    self._allowed, self._names = allowed, {}

  def report(self, name: str, why: object) -> None:
    """Counts a file that cannot be read and logs a warning; each name is counted only once.

    Args:
      name: the file's name in messages.
      why: the reason, usually the exception.

    Raises:
      InputError: if there are now more unreadable files than allowed.
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
  """Returns the label if it is the number of a class.

  Args:
    label: the label to check.
    num_classes: labels are 0 to num_classes - 1.
    name: the file's name in the error message.

  Raises:
    InputError: if there is no such class.
  """
  if not 0 <= label < num_classes:
    raise InputError(
      f"{name} has label {label}, which is out of range: labels are 0 to {num_classes - 1}"
    )
  return label


def read_all(
  files: Files, num_classes: int, unreadable: Unreadable, shape: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Decodes all files into memory, and leaves out those that cannot be read.

  Args:
    files: the files, at least one.
    num_classes: labels are 0 to num_classes - 1.
    unreadable: counts the files that are left out.
    shape: `[H, W, 3]`, which every image must have; None takes the shape of the first image.

  Returns:
    Images uint8 `[n, H, W, 3]` and labels int32 `[n]`.

  Raises:
    InputError: for an image of another shape, a label out of range, too many unreadable files, or
      if no file can be read.
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
