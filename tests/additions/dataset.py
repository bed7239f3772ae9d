"""A data set added from outside: noisy images that are bright on the left or on the right."""

import numpy as np

from gatprune_jax.data import DATASETS, arrays

NAME = "sides"


def sides(config, seed):
  rng = np.random.default_rng(seed)
  y = (np.arange(160) % 2).astype(np.int32)
  x = rng.standard_normal((160, 8, 8, 1)).astype(np.float32)
  x[y == 0, :, :4] += 1.0
  x[y == 1, :, 4:] += 1.0
  return arrays(x, y, seed=seed)._replace(num_classes=2)


def add(setitem):
  setitem(DATASETS, NAME, sides)
