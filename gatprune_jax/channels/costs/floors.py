"""Computes each group's floor, which is the fewest channels that it keeps."""

import math

import numpy as np

from gatprune_jax.channels.graph import ChannelGraph
from gatprune_jax.errors import InputError


def keep_floors(graph: ChannelGraph, fraction: float, allow_empty: bool = False) -> np.ndarray:
  """Returns each group's fewest channels, max(1, ceil(fraction * width)), int64 `[groups]`.

  Args:
    graph: the network's channels.
    fraction: smallest share of each group's width that is kept, in [0, 1].
    allow_empty: whether the floor of every group with a bypass is 0 instead.

  Raises:
    InputError: the fraction is not in [0, 1].
  """
  if not 0 <= fraction <= 1:
    raise InputError(f"the keep floor {fraction} is not a share of a group: choose one in [0, 1]")
  # The product is rounded because 0.07 * 100 is 7.000000000000001 in floating point.
  share = lambda group: math.ceil(round(fraction * len(group.channels), 9))
  return np.array([0 if allow_empty and g.has_bypass else max(1, share(g)) for g in graph.groups])


def smallest_mask(graph: ChannelGraph, floors: np.ndarray) -> np.ndarray:
  """Returns a mask with every group at its floor, bool `[N]`."""
  mask = np.zeros(graph.num_channels, bool)
  for group, floor in zip(graph.groups, floors, strict=True):
    mask[group.channels[:floor]] = True
  return mask
