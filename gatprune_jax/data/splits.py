"""The four fixed parts of a data set."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.model_selection import train_test_split

from gatprune_jax.errors import InputError


class Split(NamedTuple):
  """Labelled images."""

  x: np.ndarray  # [n, H, W, C] float32, or uint8 where the data set has `pixels`
  y: np.ndarray  # [n] int32


class Pixels(NamedTuple):
  """How stored pixels become a network's input, per colour channel."""

  mean: tuple[float, ...]
  std: tuple[float, ...]

  def __call__(self, x: jax.Array) -> jax.Array:
    """(x / 255 - mean) / std of uint8 images `[..., C]`, float32."""
    broadcast = (1,) * (x.ndim - 1) + (-1,)
    mean, std = (jnp.array(values).reshape(broadcast) for values in self)
    return (x.astype(jnp.float32) / 255 - mean) / std


class Dataset(NamedTuple):
  """A data set in its four parts, fixed by a seed before anything is trained."""

  name: str
  num_classes: int
  train: Split  # trains the weights
  reward: Split  # scores masks during the search
  select: Split  # chooses between finished candidates
  test: Split  # read once, at the end
  pixels: Pixels | None = None  # None: images are stored as the network reads them


class Sizes(NamedTuple):
  """Images of each part; 0: all that are left."""

  train: int
  reward: int
  select: int
  test: int


def cut(split: Split, first: int, seed: int) -> tuple[Split, Split]:
  """Cuts a split in two with equal class shares: `first` images, and the rest.

  Raises:
    InputError: where a part would have fewer images than there are classes.
  """
  num_classes = len(np.unique(split.y))
  if not num_classes <= first <= len(split.y) - num_classes:
    raise InputError(
      f"cannot cut {first} of {len(split.y)} images off: each part needs at least {num_classes}, "
      "one of each class"
    )
  a, b = train_test_split(
    np.arange(len(split.y)), train_size=first, stratify=split.y, random_state=seed
  )
  return Split(split.x[a], split.y[a]), Split(split.x[b], split.y[b])


def cut_in_four(images: Split, test: Split | None, sizes: Sizes, seed: int) -> tuple[Split, ...]:
  """Cuts train, reward, select and test, each with equal class shares.

  Args:
    images: what train, reward and select are cut from.
    test: test images of their own, of which a smaller part is the same for every seed; None: test
      is cut from the images too.
    sizes: of the parts; reward and select are not 0, and test is not where it is cut too.
    seed: of the cuts.

  Raises:
    InputError: where a part would have fewer images than there are classes.
  """
  if test is None:
    test, images = cut(images, sizes.test, seed)
  elif sizes.test:
    test, _ = cut(test, sizes.test, 0)
  select, images = cut(images, sizes.select, seed)
  reward, train = cut(images, sizes.reward, seed)
  if sizes.train:
    train, _ = cut(train, sizes.train, seed)
  return train, reward, select, test
