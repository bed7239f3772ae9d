"""The four fixed parts of a data set."""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.model_selection import train_test_split

from gatprune_jax.data.photographs import Photographs
from gatprune_jax.errors import InputError

_PIXELS_AT_ONCE = 2**22  # bounds the memory of an evaluation


class Split(NamedTuple):
  """Labelled images."""

  x: np.ndarray | Photographs  # [n, H, W, C] float32, or uint8 where the data set has `pixels`
  y: np.ndarray  # [n] int32

  def subset(self, indices: np.ndarray) -> "Split":
    """Some of the images; photographs stay unread."""
    lazy = isinstance(self.x, Photographs)
    return Split(self.x.subset(indices) if lazy else self.x[indices], self.y[indices])

  def pieces(self) -> Iterator["Split"]:
    """The images in order, in memory, a few at once: 4,096 of 32 x 32 pixels, 83 of 224 x 224."""
    size = max(1, _PIXELS_AT_ONCE // (self.x.shape[1] * self.x.shape[2]))
    for first in range(0, len(self.y), size):
      yield Split(self.x[first : first + size], self.y[first : first + size])

  def in_memory(self) -> "Split":
    """The same, photographs read."""
    return Split(self.x[:], self.y)


class Pixels(NamedTuple):
  """How stored pixels become a network's input, per colour channel."""

  mean: tuple[float, ...]
  std: tuple[float, ...]

  def __call__(self, x: jax.Array) -> jax.Array:
    """(x / 255 - mean) / std of uint8 images `[..., C]`, float32."""
    broadcast = (1,) * (x.ndim - 1) + (-1,)
    mean, std = (jnp.array(values).reshape(broadcast) for values in self)
    return (x.astype(jnp.float32) / 255 - mean) / std


# Published CIFAR checkpoints were trained with these, too.
IMAGENET_PIXELS = Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def measure_pixels(x: np.ndarray) -> Pixels:
  """Mean and standard deviation of each colour over uint8 images `[n, H, W, C]`.

  A colour that is the same everywhere gets the deviation 1/255.
  """
  counts = np.stack([np.bincount(x[..., c].ravel(), minlength=256) for c in range(x.shape[-1])])
  shares, values = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
  mean = shares @ values
  deviation = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
  return Pixels(tuple(mean.tolist()), tuple(np.maximum(deviation, 1 / 255).tolist()))


class Dataset(NamedTuple):
  """A data set in its four parts, fixed by a seed before anything is trained."""

  name: str
  num_classes: int
  train: Split  # trains the weights
  reward: Split  # scores masks during the search
  select: Split  # chooses between finished candidates
  test: Split  # read once, at the end
  pixels: Pixels | None = None  # None: images are stored as the network reads them

  def with_scored_in_memory(self) -> "Dataset":
    """The same, with the photographs read that are looked at again and again."""
    return self._replace(reward=self.reward.in_memory(), select=self.select.in_memory())


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Images of each part.

  Attributes:
    train: images that train the weights; 0: all that the other parts leave.
    reward: images that score masks during the search.
    select: images that choose among finished networks.
    test: images that are read once, at the end; 0: all of the data set's own test images.
  """

  train: int = 0
  reward: int = 1000
  select: int = 1000
  test: int = 0

  def __post_init__(self):
    """Refuses negative numbers."""
    for field in dataclasses.fields(self):
      if (value := getattr(self, field.name)) < 0:
        raise InputError(f"images.{field.name} is {value}: it must not be negative")


def cut(split: Split, first: int, seed: int) -> tuple[Split, Split]:
  """Cuts a split in two: `first` images, and the rest.

  Classes have equal shares of both, unless a part has fewer images than there are classes, or a
  class has a single image: then they are drawn without regard to them.

  Raises:
    InputError: where a part would have no images.
  """
  if not 0 < first < len(split.y):
    raise InputError(
      f"cannot cut {first} of {len(split.y)} images off: each part needs one at least"
    )
  counts = np.unique(split.y, return_counts=True)[1]
  balanced = len(counts) <= first <= len(split.y) - len(counts) and counts.min() > 1
  parts = train_test_split(
    np.arange(len(split.y)),
    train_size=first,
    stratify=split.y if balanced else None,
    random_state=seed,
  )
  return tuple(split.subset(indices) for indices in parts)


def cut_in_four(
  images: Split,
  test: Split | None,
  sizes: Sizes,
  seed: int,
  class_names: Sequence[str] = (),
) -> tuple[Split, ...]:
  """Cuts train, reward, select and test; see `cut`.

  Args:
    images: what train, reward and select are cut from.
    test: test images of their own, of which a smaller part is the same for every seed; None: test
      is cut from the images too.
    sizes: of the parts; reward and select are not 0, and test is not where it is cut too.
    seed: of the cuts.
    class_names: what the error calls the classes; none: their labels.

  Raises:
    InputError: where a class has fewer images than there are parts to cut, or a part would have
      none, or has not as many.
  """
  cut_parts = ["train", "reward", "select"] + ["test"] * (test is None)
  labels, counts = np.unique(images.y, return_counts=True)
  if (fewest := counts.min()) < len(cut_parts):
    label = labels[counts.argmin()]
    name = repr(class_names[label]) if class_names else label
    raise InputError(
      f"class {name} has {fewest} images: {', '.join(cut_parts)} are cut from them, and each "
      "needs one"
    )

  def cut_off(split, part, seed):
    try:
      return cut(split, getattr(sizes, part), seed)
    except InputError as error:
      raise InputError(f"images.{part} is {getattr(sizes, part)}: {error}") from error

  def reduced(split, part, seed):
    whole = getattr(sizes, part) in (0, len(split.y))
    return split if whole else cut_off(split, part, seed)[0]

  if test is None:
    test, images = cut_off(images, "test", seed)
  else:
    test = reduced(test, "test", 0)
  select, images = cut_off(images, "select", seed)
  reward, train = cut_off(images, "reward", seed)
  return reduced(train, "train", seed), reward, select, test
