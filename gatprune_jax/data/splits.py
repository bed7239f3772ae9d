"""The four fixed parts of a data set: train, reward, select and test.

The parts are cut at random by a seed before anything is trained.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.model_selection import train_test_split

from gatprune_jax.data.photographs import Photographs
from gatprune_jax.errors import InputError

_PIXELS_AT_ONCE = 2**22  # limits the memory that one call of an evaluation needs


class Split(NamedTuple):
  """Examples: inputs, which are usually images, and their targets."""

  # [n, ...]; images are float32 [n, H, W, C], or uint8 if the data set has `pixels`.
  x: np.ndarray | Photographs
  y: Any  # tree of arrays [n, ...], usually labels int32 [n]

  @property
  def num(self) -> int:
    """The number of examples, n."""
    return self.x.shape[0]

  def targets(self, index: Any) -> Any:
    """Returns the targets of the examples that an index selects."""
    return jax.tree.map(lambda rows: rows[index], self.y)

  def first(self, num: int) -> "Split":
    """Returns the first `num` examples, in memory."""
    return Split(self.x[:num], self.targets(slice(num)))

  def subset(self, indices: np.ndarray) -> "Split":
    """Returns the examples at some indices; photographs are not read yet."""
    lazy = isinstance(self.x, Photographs)
    return Split(self.x.subset(indices) if lazy else self.x[indices], self.targets(indices))

  def pieces(self) -> Iterator["Split"]:
    """Yields all examples in order and in memory, as pieces of limited size.

    A piece has 4,096 images of 32 x 32 pixels, or 83 images of 224 x 224.
    """
    size = max(1, _PIXELS_AT_ONCE // math.prod(self.x.shape[1:3]))
    for start in range(0, self.num, size):
      rows = slice(start, start + size)
      yield Split(self.x[rows], self.targets(rows))

  def in_memory(self) -> "Split":
    """Returns the same split with all photographs read into memory."""
    return Split(self.x[:], self.y)


class Pixels(NamedTuple):
  """The normalisation of stored pixels to a network's input, per colour channel."""

  mean: tuple[float, ...]
  std: tuple[float, ...]

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns (x / 255 - mean) / std of uint8 images `[..., C]`, float32."""
    broadcast = (1,) * (x.ndim - 1) + (-1,)
    mean, std = (jnp.array(values).reshape(broadcast) for values in self)
    return (x.astype(jnp.float32) / 255 - mean) / std


# Mean and standard deviation of ImageNet, with which published CIFAR checkpoints were trained, too.
IMAGENET_PIXELS = Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def measure_pixels(x: np.ndarray) -> Pixels:
  """Computes mean and standard deviation of each colour over uint8 images `[n, H, W, C]`.

  The standard deviation is at least 1/255, so that a constant colour can be divided by it.
  """
  counts = np.stack([np.bincount(x[..., c].ravel(), minlength=256) for c in range(x.shape[-1])])
  shares, values = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
  mean = shares @ values
  deviation = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
  return Pixels(tuple(mean.tolist()), tuple(np.maximum(deviation, 1 / 255).tolist()))


class Dataset(NamedTuple):
  """A data set in its four parts, which a seed fixes before anything is trained."""

  name: str
  # None if targets are not labels, or if only the network defines the number of classes.
  num_classes: int | None
  train: Split  # examples that train the weights
  reward: Split  # examples on which the search scores masks
  select: Split  # examples that choose among finished networks
  test: Split  # examples that are used once, at the end
  pixels: Pixels | None = None  # None if images are stored as the network takes them

  def with_scored_in_memory(self) -> "Dataset":
    """Returns the same data set with reward and select, which are used repeatedly, in memory."""
    return self._replace(reward=self.reward.in_memory(), select=self.select.in_memory())


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Number of images in each part.

  Attributes:
    train: number of images that train the weights; 0 takes all that the other parts leave.
    reward: number of images that score masks during the search.
    select: number of images that choose among finished networks.
    test: number of images that are used once, at the end; 0 takes all of the data set's own test
      images.
  """

  train: int = 0
  reward: int = 1000
  select: int = 1000
  test: int = 0

  def __post_init__(self):
    """Raises InputError for negative numbers."""
    for field in dataclasses.fields(self):
      if (value := getattr(self, field.name)) < 0:
        raise InputError(f"images.{field.name} is {value}: it must not be negative")


def are_labels(y: Any) -> bool:
  """Returns whether targets are an array with one integer for each example."""
  return isinstance(y, np.ndarray) and y.ndim == 1 and np.issubdtype(y.dtype, np.integer)


def cut(split: Split, first: int, seed: int) -> tuple[Split, Split]:
  """Cuts a split at random into two parts: `first` examples, and the rest.

  Every class is divided between the parts in the same proportion. Classes are ignored if targets
  are not labels, if a part would have fewer images than there are classes, or if a class has a
  single image.

  Args:
    split: the n examples to cut.
    first: size of the first part, 1 to n - 1.
    seed: seed of the cut.

  Raises:
    InputError: if a part would have no examples.
  """
  if not 0 < first < split.num:
    raise InputError(f"cannot cut {first} of {split.num} images off: each part needs one at least")
  balanced = False
  if are_labels(split.y):
    counts = np.unique(split.y, return_counts=True)[1]
    balanced = len(counts) <= first <= split.num - len(counts) and counts.min() > 1
  parts = train_test_split(
    np.arange(split.num),
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
) -> tuple[Split, Split, Split, Split]:
  """Cuts labelled images into the parts train, reward, select and test; see `cut`.

  Args:
    images: images from which train, reward and select are cut.
    test: the data set's own test images. If `sizes.test` is smaller, the same images are chosen for
      every seed. If None, the test part is cut from `images` too.
    sizes: sizes of the parts. Reward and select must not be 0, and test must not be 0 if it is cut
      from `images`.
    seed: seed of the cuts.
    class_names: names of the classes for the error message; if empty, labels are named.

  Returns:
    The parts train, reward, select and test.

  Raises:
    InputError: if a class has fewer images than parts are cut from them, if a part would be empty,
      or if there are fewer images than a part's size.
  """
  _check_classes(images.y, 3 + (test is None), class_names)
  return cut_parts(images, test, sizes, seed)


def _check_classes(labels: np.ndarray, num_parts: int, class_names: Sequence[str]) -> None:
  """Raises InputError if a class has fewer images than `num_parts`."""
  present, counts = np.unique(labels, return_counts=True)
  if (fewest := counts.min()) < num_parts:
    label = present[counts.argmin()]
    name = repr(class_names[label]) if class_names else label
    parts = ["train", "reward", "select", "test"][:num_parts]
    raise InputError(
      f"class {name} has {fewest} images: {', '.join(parts)} are cut from them, and each needs one"
    )


def cut_parts(
  images: Split, test: Split | None, sizes: Sizes, seed: int
) -> tuple[Split, Split, Split, Split]:
  """Cuts examples like `cut_in_four`, but their targets need not be labels.

  Args:
    images: examples from which train, reward and select are cut.
    test: the data set's own test examples; None cuts the test part from `images` too.
    sizes: sizes of the parts, see `cut_in_four`.
    seed: seed of the cuts.

  Raises:
    InputError: if a part would be empty, or if there are fewer examples than a part's size.
  """

  def cut_off(split, part, seed):
    try:
      return cut(split, getattr(sizes, part), seed)
    except InputError as error:
      raise InputError(f"images.{part} is {getattr(sizes, part)}: {error}") from error

  def reduced(split, part, seed):
    whole = getattr(sizes, part) in (0, split.num)
    return split if whole else cut_off(split, part, seed)[0]

  if test is None:
    test, images = cut_off(images, "test", seed)
  else:
    test = reduced(test, "test", 0)
  select, images = cut_off(images, "select", seed)
  reward, train = cut_off(images, "reward", seed)
  return reduced(train, "train", seed), reward, select, test
