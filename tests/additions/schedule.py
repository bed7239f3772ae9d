"""A schedule added from outside: it decides the first half of the groups, then the second half."""

import numpy as np

from gatprune_jax.search.mdp import SCHEDULES

NAME = "halves"


def halves(graph):
  first = graph.group_of < len(graph.groups) / 2
  return np.stack([first, ~first])


def add(setitem):
  setitem(SCHEDULES, NAME, halves)
