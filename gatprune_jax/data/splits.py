"""The four fixed parts of a data set."""

from typing import NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from gatprune_jax.errors import InputError


class Split(NamedTuple):
  """Labelled images."""

  x: np.ndarray  # [n, H, W, C] float32
  y: np.ndarray  # [n] int32


class Dataset(NamedTuple):
  """A data set in its four parts, fixed by a seed before anything is trained."""

  name: str
  num_classes: int
  train: Split  # trains the weights
  reward: Split  # scores masks during the search
  select: Split  # chooses between finished candidates
  test: Split  # read once, at the end


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
