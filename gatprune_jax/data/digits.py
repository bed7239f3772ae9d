"""Handwritten digits that come with scikit-learn: real images without a download."""

import numpy as np
from sklearn.datasets import load_digits

from gatprune_jax.data.splits import Dataset, Split, cut

_REWARD, _SELECT, _TEST = 400, 300, 400


def digits(seed: int) -> Dataset:
  """The 1,797 images `[8, 8, 1]` of the UCI optical digits test set, scaled to [-1, 1].

  697 images train, 400 reward, 300 select and 400 test, class-balanced, drawn by the seed.
  """
  x, y = load_digits(return_X_y=True)
  everything = Split((x.reshape(-1, 8, 8, 1) / 8 - 1).astype(np.float32), y.astype(np.int32))
  test, rest = cut(everything, _TEST, seed)
  select, rest = cut(rest, _SELECT, seed)
  reward, train = cut(rest, _REWARD, seed)
  return Dataset("digits", 10, train, reward, select, test)
