"""Data sets, each cut into four fixed parts: train, reward, select and test."""

from collections.abc import Callable
import importlib

from gatprune_jax.data.augmentation import random_flip, random_shift
from gatprune_jax.data.data_config import DataConfig
from gatprune_jax.data.digits import DIGITS, digits
from gatprune_jax.data.feeding import Feed, check_feed, make_feed
from gatprune_jax.data.in_memory import arrays
from gatprune_jax.data.photographs import Photographs
from gatprune_jax.data.splits import Dataset, Pixels, Sizes, Split, cut, cut_in_four
from gatprune_jax.errors import InputError


def _from(module: str, name: str) -> Callable[[DataConfig, int], Dataset]:
  """Returns a loader that imports its module when called, because some imports take seconds."""
  return lambda config, seed: getattr(importlib.import_module(f"gatprune_jax.data.{module}"), name)(
    config, seed
  )


# Name -> (config, seed of the cuts) -> data set
DATASETS: dict[str, Callable[[DataConfig, int], Dataset]] = {
  "digits": digits,
  "cifar10": _from("tfds", "cifar"),
  "cifar100": _from("tfds", "cifar"),
  "imagenet2012": _from("tfds", "imagenet"),
  "npz": _from("npz", "npz"),
  "folder": _from("folder", "folder"),
}


def load_dataset(config: DataConfig = DIGITS, seed: int = 0) -> Dataset:
  """Loads the data set that the config names, cut into its parts at random by the seed.

  Raises:
    InputError: if the name is unknown, or if the directory or the sizes cannot be used.
  """
  if config.dataset not in DATASETS:
    raise InputError(
      f"dataset {config.dataset!r} is unknown: choose one of {', '.join(sorted(DATASETS))}"
    )
  return DATASETS[config.dataset](config, seed)


__all__ = [
  "DATASETS",
  "DIGITS",
  "DataConfig",
  "Dataset",
  "Feed",
  "Photographs",
  "Pixels",
  "Sizes",
  "Split",
  "arrays",
  "check_feed",
  "cut",
  "cut_in_four",
  "digits",
  "load_dataset",
  "make_feed",
  "random_flip",
  "random_shift",
]
