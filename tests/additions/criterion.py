"""A criterion added from outside: the fewer MACs a channel costs, the higher its score."""

import numpy as np

from gatprune_jax.channels.costs import RESOURCES, Deployment
from gatprune_jax.criteria import CRITERIA

NAME = "cheapness"


def cheapness(evidence):
  everything = np.ones(evidence.graph.num_channels)
  return -np.asarray(RESOURCES["macs"](evidence.graph, Deployment()).gradient(everything))


def add(setitem):
  setitem(CRITERIA, NAME, cheapness)
