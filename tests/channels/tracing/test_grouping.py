"""Tests of `Partition`, which splits elements by where they occur, against a count in Python."""

import collections

import numpy as np

from gatprune_jax.channels.tracing.grouping import Partition


def test_classes_are_of_elements_found_equally_often_in_every_place():
  rng = np.random.default_rng(0)
  for _ in range(40):
    size = int(rng.integers(1, 30))
    start = rng.integers(0, 3, size)
    partition, seen = Partition(start), [(int(first),) for first in start]
    for _ in range(int(rng.integers(0, 6))):
      found = rng.integers(0, size, int(rng.integers(0, 3 * size)))
      partition.split(found)
      times = collections.Counter(found.tolist())
      seen = [(*places, times[element]) for element, places in enumerate(seen)]
    for first, places in enumerate(seen):
      same = [other == places for other in seen]
      np.testing.assert_array_equal(partition.of == partition.of[first], same)
