"""The four fixed parts of a data set."""

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

_PIXELS_AT_ONCE = 2**22  # bounds the memory of an evaluation


class Split(NamedTuple):
  """Examples: inputs, images mostly, with their targets."""

  # [n, ...]: images [n, H, W, C] float32, or uint8 where the data set has `pixels`
  x: np.ndarray | Photographs
  y: Any  # tree of arrays [n, ...]: labels [n] int32 mostly

  @property
  def num(self) -> int:
    """How many examples there are: n."""
    return self.x.shape[0]

  def targets(self, index: Any) -> Any:
    """The targets of some examples."""
    return jax.tree.map(lambda rows: rows[index], self.y)

  def first(self, num: int) -> "Split":
    """The first examples, in memory."""
    return Split(self.x[:num], self.targets(slice(num)))

  def subset(self, indices: np.ndarray) -> "Split":
    """Some of the examples; photographs stay unread."""
    lazy = isinstance(self.x, Photographs)
    return Split(self.x.subset(indices) if lazy else self.x[indices], self.targets(indices))

  def pieces(self) -> Iterator["Split"]:
    """The examples in order, in memory, a few at once: 4,096 images of 32 x 32, 83 of 224 x 224."""
    size = max(1, _PIXELS_AT_ONCE // math.prod(self.x.shape[1:3]))
    for start in range(0, self.num, size):
      rows = slice(start, start + size)
      yield Split(self.x[rows], self.targets(rows))

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
  num_classes: int | None  # None: targets are not labels, or the network alone knows of how many
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


def are_labels(y: Any) -> bool:
  """Whether targets are one integer for each example."""
  return isinstance(y, np.ndarray) and y.ndim == 1 and np.issubdtype(y.dtype, np.integer)


def cut(split: Split, first: int, seed: int) -> tuple[Split, Split]:
  """Cuts a split in two: `first` images, and the rest.

  Classes have equal shares of both, unless a part has fewer images than there are classes, or a
  class has a single image: then they are drawn without regard to them, as examples are whose
  targets are no labels.

  Raises:
    InputError: where a part would have no images.
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
  _check_classes(images.y, 3 + (test is None), class_names)
  return cut_parts(images, test, sizes, seed)


def _check_classes(labels: np.ndarray, num_parts: int, class_names: Sequence[str]) -> None:
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
  """As `cut_in_four`, of examples whose targets need not be labels."""

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
