"""Makes the training batches of an epoch on the devices, in an order that a PRNG key determines."""

from collections.abc import Callable, Iterator
import functools
from typing import Any

from grain.experimental import device_put
import jax
import numpy as np

from gatprune_jax.data.photographs import Photographs
from gatprune_jax.data.splits import Split
from gatprune_jax.errors import InputError
from gatprune_jax.runtime import mesh

# (PRNG key of the epoch, number of the batch to begin with) -> iterator over batches, each of them
# inputs x [B, ...] and a tree of targets [B, ...].
Feed = Callable[[jax.Array, int], Iterator[tuple[jax.Array, Any]]]


def check_feed(split: Split, batch_size: int, crop_area: float) -> int:
  """Returns the number of whole batches in the split.

  Args:
    split: training examples.
    batch_size: examples in a batch.
    crop_area: smallest share of a photograph that a random crop has; 1 for centre crops.

  Raises:
    InputError: if the split is smaller than a batch, or if `crop_area` is below 1 but the images
      are not photographs.
  """
  if crop_area < 1 and not isinstance(split.x, Photographs):
    raise InputError(
      f"crop_area is {crop_area}: only photographs are cropped (image_size is not 0); set it to 1, "
      "and shift the images instead"
    )
  if (steps := split.num // batch_size) == 0:
    raise InputError(
      f"batch_size {batch_size} exceeds the {split.num} training images: choose a smaller one"
    )
  return steps


def make_feed(split: Split, batch_size: int, crop_area: float, shared: bool = False) -> Feed:
  """Returns a function that yields the split in whole batches, each image at most once an epoch.

  Order and crops depend only on the epoch's key and the number of the batch, so an epoch that was
  interrupted can be resumed at any batch with the same result. Images in memory are put on the
  devices once. Photographs are read ahead of their use, in threads. If batches are shared out over
  the devices, the first images of a batch are repeated until all devices have equal shares, and a
  process reads only the photographs of its own devices.

  Args:
    split: training examples.
    batch_size: images in a batch.
    crop_area: smallest share of a photograph that a random crop has; 1 for centre crops.
    shared: True gives each device a share of every batch; False gives each device whole batches.

  Raises:
    InputError: see `check_feed`.
  """
  steps = check_feed(split, batch_size, crop_area)
  sharding = mesh.shares() if shared else mesh.everywhere()
  columns = mesh.padded_rows(batch_size) if shared else np.arange(batch_size)

  def order(key):
    chosen = jax.random.permutation(key, split.num)[: steps * batch_size]
    return np.asarray(chosen).reshape(steps, batch_size)

  if isinstance(split.x, Photographs):
    own = columns[mesh.own_columns(len(columns))] if shared else columns
    put = functools.partial(mesh.assemble, sharding)

    def photographs(key, first):
      rows, seed = order(key)[first:], int(jax.random.bits(key))
      images = split.x.batches(rows, seed, first, crop_area, own)
      if jax.process_count() == 1:
        images = device_put(images, sharding)  # copies ahead of use, in a background thread
      for x, row in zip(images, rows, strict=True):
        yield put(x), jax.tree.map(put, split.targets(row[own]))

    return photographs

  images, labels = mesh.replicate((split.x, split.y))
  shardings = (sharding, sharding)
  pick = lambda x, y, row: (x[row], jax.tree.map(lambda rows: rows[row], y))
  take = jax.jit(pick, out_shardings=shardings)
  return lambda key, first: (take(images, labels, row[columns]) for row in order(key)[first:])
