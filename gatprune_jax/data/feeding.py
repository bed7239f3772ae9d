"""Training batches on the device, in an order that follows a key."""

from collections.abc import Callable, Iterator

from grain.experimental import device_put
import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.data.photographs import Photographs
from gatprune_jax.data.splits import Split
from gatprune_jax.errors import InputError

# (key of the epoch, number of its first batch) -> batches: images [B, H, W, C], labels [B]
Feed = Callable[[jax.Array, int], Iterator[tuple[jax.Array, jax.Array]]]


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
  if (steps := len(split.y) // batch_size) == 0:
    raise InputError(
      f"batch_size {batch_size} exceeds the {len(split.y)} training images: choose a smaller one"
    )
  return steps


def make_feed(split: Split, batch_size: int, crop_area: float) -> Feed:
  """Feeds the split in whole batches, each image at most once an epoch.

  Order and crops follow the epoch's key and a batch's number alone, so that an epoch goes on from
  any batch as if it had not been left. Images in memory are put on the device once; photographs are
  read ahead of their use in threads.

  Args:
    split: training images and labels.
    batch_size: images a batch.
    crop_area: smallest share of a photograph that a random crop has; 1: centre crops.

  Raises:
    InputError: as `check_feed`.
  """
  steps = check_feed(split, batch_size, crop_area)

  def order(key):
    chosen = jax.random.permutation(key, len(split.y))[: steps * batch_size]
    return chosen.reshape(steps, batch_size)

  if isinstance(split.x, Photographs):

    def photographs(key, first):
      rows, seed = np.asarray(order(key))[first:], int(jax.random.bits(key))
      images = split.x.batches(rows, seed, first, crop_area)
      for x, row in zip(device_put(images, jax.devices()[0]), rows, strict=True):
        yield x, jnp.asarray(split.y[row])

    return photographs

  x, y = jnp.asarray(split.x), jnp.asarray(split.y)
  take = jax.jit(lambda row: (x[row], y[row]))
  return lambda key, first: map(take, order(key)[first:])
