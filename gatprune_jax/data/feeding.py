"""Training batches on the device, in an order that follows a key."""

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

# (key of the epoch, number of its first batch) -> batches: x [B, ...], tree of targets [B, ...]
Feed = Callable[[jax.Array, int], Iterator[tuple[jax.Array, Any]]]


def check_feed(split: Split, batch_size: int, crop_area: float) -> int:
  """Whole batches in the split.

  Raises:
    InputError: where there is none, or images that are no photographs were to be cropped.
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
  """Feeds the split in whole batches, each image at most once an epoch.

  Order and crops follow the epoch's key and a batch's number alone, so that an epoch goes on from
  any batch as if it had not been left. Images in memory are put on the devices once; photographs
  are read ahead of their use in threads. Where batches are shared out, the first images fill up the
  last share, and a process reads the photographs of its own devices only.

  Args:
    split: training examples.
    batch_size: images a batch.
    crop_area: smallest share of a photograph that a random crop has; 1: centre crops.
    shared: whether a batch is shared out over the devices, or whole on each.

  Raises:
    InputError: as `check_feed`.
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
        images = device_put(images, sharding)  # in a thread
      for x, row in zip(images, rows, strict=True):
        yield put(x), jax.tree.map(put, split.targets(row[own]))

    return photographs

  images, labels = mesh.replicate((split.x, split.y))
  shardings = (sharding, sharding)
  pick = lambda x, y, row: (x[row], jax.tree.map(lambda rows: rows[row], y))
  take = jax.jit(pick, out_shardings=shardings)
  return lambda key, first: (take(images, labels, row[columns]) for row in order(key)[first:])
