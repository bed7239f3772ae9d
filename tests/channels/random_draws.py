"""The source of random choices of the random networks."""

import numpy as np


class Draw:
  """Random choices that a seed determines, as Python values."""

  def __init__(self, seed):
    self.rng = np.random.default_rng(seed)

  def of(self, *options, weights=None):
    weights = None if weights is None else np.array(weights) / np.sum(weights)
    return options[self.rng.choice(len(options), p=weights)]

  def chance(self, probability):
    return bool(self.rng.random() < probability)

  def between(self, low, high):
    return int(self.rng.integers(low, high + 1))
