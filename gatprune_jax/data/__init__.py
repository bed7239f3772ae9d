"""Data sets in four fixed parts. `DATASETS` names those that need no files."""

from collections.abc import Callable

from gatprune_jax.data.augmentation import random_shift
from gatprune_jax.data.digits import digits
from gatprune_jax.data.splits import Dataset, Split, cut
from gatprune_jax.errors import InputError

DATASETS: dict[str, Callable[[int], Dataset]] = {"digits": digits}


def load_dataset(name: str, seed: int) -> Dataset:
  """Loads a data set by name, split by the seed.

  Raises:
    InputError: for an unknown name.
  """
  if name not in DATASETS:
    raise InputError(f"dataset {name!r} is unknown: choose one of {', '.join(sorted(DATASETS))}")
  return DATASETS[name](seed)


__all__ = ["DATASETS", "Dataset", "Split", "cut", "digits", "load_dataset", "random_shift"]
