"""Photographs of any size, cropped to one size when they are read, in several threads."""

from collections.abc import Callable
import os

import grain
import numpy as np

from gatprune_jax.data.decoding import centre_crop, random_crop
from gatprune_jax.data.files import READING_ERRORS, Files, Unreadable
from gatprune_jax.errors import InputError

_READ_AHEAD = 2  # batches


class Photographs:
  """Looks like an array `[n, side, side, 3]` of uint8, but is decoded when it is sliced.

  A photograph that turns out to be unreadable is replaced by the next of its class among these.

  Attributes:
    shape: as of an array.
  """

  def __init__(
    self,
    files: Files,
    labels: np.ndarray,
    side: int,
    unreadable: Unreadable,
    indices: np.ndarray | None = None,
  ):
    """Reads nothing yet.

    Args:
      files: where the photographs are.
      labels: of all files `[len(files)]`.
      side: of the crops, pixels.
      unreadable: takes note of those.
      indices: `[n]` which files these are; None: all.
    """
    self._files, self._labels, self._side, self._unreadable = files, labels, side, unreadable
    self._indices = np.arange(len(files)) if indices is None else indices
    self.shape = (len(self._indices), side, side, 3)

  def subset(self, positions: np.ndarray) -> "Photographs":
    """Some of these, still unread."""
    chosen = self._indices[positions]
    return Photographs(self._files, self._labels, self._side, self._unreadable, chosen)

  def __getitem__(self, positions: slice) -> np.ndarray:
    """Centre crops of a range."""
    chosen = np.arange(len(self._indices))[positions]
    crop = lambda place, file: centre_crop(file, self._side)
    images = list(self._read(chosen, crop).to_iter_dataset(_threads(len(chosen))))
    return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)

  def batches(
    self,
    order: np.ndarray,
    seed: int,
    first: int,
    area: float,
    columns: np.ndarray | None = None,
  ) -> grain.IterDataset:
    """Random crops in the given order, read ahead of their use.

    The crop of row r and column c is drawn by (seed, first + r, c) alone, so that an epoch can go
    on from any of its batches.

    Args:
      order: positions `[S, B]`.
      seed: of the crops.
      first: the first row's number.
      area: smallest share of a crop; 1: centre crops.
      columns: of the order that are read `[b]`; None: all.
    """
    columns = np.arange(order.shape[1]) if columns is None else columns
    size = len(columns)

    def crop(place, file):
      if area == 1:
        return centre_crop(file, self._side)
      rng = np.random.default_rng((seed, first + place // size, columns[place % size]))
      return random_crop(file, self._side, area, rng)

    images = self._read(order[:, columns].ravel(), crop)
    return images.to_iter_dataset(_threads(_READ_AHEAD * size)).batch(size)

  def _read(
    self, positions: np.ndarray, crop: Callable[[int, bytes], np.ndarray]
  ) -> grain.MapDataset:
    """crop(place, file) of each of the positions."""
    return grain.MapDataset.range(len(positions)).map(
      lambda place: self._cropped(int(positions[place]), lambda file: crop(place, file))
    )

  def _cropped(self, position: int, crop: Callable[[bytes], np.ndarray]) -> np.ndarray:
    """A crop of the photograph, or of the next of its class that can be read."""
    label = self._labels[self._indices[position]]
    tried, index = 0, int(self._indices[position])
    while True:
      try:
        return crop(self._files.read(index)[0])
      except READING_ERRORS as error:
        self._unreadable.report(self._files.name(index), error)
      same = self._indices[self._labels[self._indices] == label]
      tried += 1
      if tried == len(same):
        raise InputError(f"no image of class {label} in this part can be read")
      index = int(same[(np.flatnonzero(same == index)[0] + 1) % len(same)])


def _threads(ahead: int) -> grain.ReadOptions:
  """One thread a core, if there is work for it; Pillow decodes outside Python's lock."""
  ahead = max(1, ahead)
  threads = min(os.cpu_count() or 1, ahead)
  return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
