"""Data sets in four fixed parts."""

from collections.abc import Callable

from gatprune_jax.data.augmentation import random_flip, random_shift
from gatprune_jax.data.digits import SIZES as DIGITS_SIZES
from gatprune_jax.data.digits import digits
from gatprune_jax.data.splits import Dataset, Pixels, Sizes, Split, cut, cut_in_four
from gatprune_jax.errors import InputError


def _cifar(name: str) -> Callable[[int, str, Sizes], Dataset]:
  def load(seed: int, directory: str, sizes: Sizes) -> Dataset:
    from gatprune_jax.data.tfds import cifar  # importing it takes seconds

    return cifar(name, seed, directory, sizes)

  return load


# (seed, directory, sizes) -> data set
DATASETS: dict[str, Callable[[int, str, Sizes], Dataset]] = {
  "digits": lambda seed, directory, sizes: digits(seed, sizes),
  "cifar10": _cifar("cifar10"),
  "cifar100": _cifar("cifar100"),
}


def load_dataset(name: str, seed: int, directory: str = "", sizes: Sizes = DIGITS_SIZES) -> Dataset:
  """Loads a data set by name, cut by the seed.

  Args:
    name: a key of `DATASETS`.
    seed: of the cuts.
    directory: where its files are; digits need none.
    sizes: of the four parts.

  Raises:
    InputError: for an unknown name, or a directory or sizes that do not serve.
  """
  if name not in DATASETS:
    raise InputError(f"dataset {name!r} is unknown: choose one of {', '.join(sorted(DATASETS))}")
  return DATASETS[name](seed, directory, sizes)


__all__ = [
  "DATASETS",
  "Dataset",
  "Pixels",
  "Sizes",
  "Split",
  "cut",
  "cut_in_four",
  "digits",
  "load_dataset",
  "random_flip",
  "random_shift",
]
