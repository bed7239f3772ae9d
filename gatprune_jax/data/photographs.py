"""Photographs of any size, which several threads read and crop to one size when needed."""

from collections.abc import Callable
import os

import grain
import numpy as np

from gatprune_jax.data.decoding import centre_crop, random_crop
from gatprune_jax.data.encoded_files import READING_ERRORS, Files, Unreadable
from gatprune_jax.errors import InputError

_READ_AHEAD = 2  # batches that are read before they are used


class Photographs:
  """A stand-in for an array uint8 `[n, side, side, 3]` that reads the files when it is sliced.

  If a photograph turns out to be unreadable, the next readable photograph of its class in the same
  part replaces it.

  Attributes:
    shape: (n, side, side, 3), like the shape of an array.
  """

  def __init__(
    self,
    files: Files,
    labels: np.ndarray,
    side: int,
    unreadable: Unreadable,
    indices: np.ndarray | None = None,
  ):
    """Keeps the arguments and reads no file yet.

    Args:
      files: the encoded photographs.
      labels: labels of all files, `[len(files)]`.
      side: side of the crops, pixels.
      unreadable: counts the photographs that cannot be read.
      indices: indices of the files that belong to this part, `[n]`; None for all files.
    """
    self._files, self._labels, self._side, self._unreadable = files, labels, side, unreadable
    self._indices = np.arange(len(files)) if indices is None else indices
    self.shape = (len(self._indices), side, side, 3)

  def subset(self, positions: np.ndarray) -> "Photographs":
    """Returns the photographs at some positions, without reading them."""
    chosen = self._indices[positions]
    return Photographs(self._files, self._labels, self._side, self._unreadable, chosen)

  def __getitem__(self, positions: slice) -> np.ndarray:
    """Reads a range of photographs as centre crops, uint8 `[k, side, side, 3]`."""
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
    """Returns batches of random crops in the given order, which are read ahead of their use.

    The crop in row r and column c of the order depends only on (seed, first + r, c), so an epoch
    can be resumed at any of its batches with the same crops.

    Args:
      order: positions of the photographs, `[S, B]`, one row for each batch.
      seed: seed of the random crops.
      first: number of the order's first row within the epoch.
      area: smallest share of a photograph's area that a crop has; 1 for centre crops.
      columns: the columns of the order that are read, `[b]`; None reads all.
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
    """Returns `crop(place, file)` of the photograph at each of the positions, computed lazily."""
    return grain.MapDataset.range(len(positions)).map(
      lambda place: self._cropped(int(positions[place]), lambda file: crop(place, file))
    )

  def _cropped(self, position: int, crop: Callable[[bytes], np.ndarray]) -> np.ndarray:
    """Crops the photograph at a position, or the next one of its class that can be read."""
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
  """Returns read options with one thread per core, but at most one for each image read ahead.

  Threads decode in parallel because Pillow releases Python's global interpreter lock.
  """
  ahead = max(1, ahead)
  threads = min(os.cpu_count() or 1, ahead)
  return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
