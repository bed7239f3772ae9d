"""Random masks, of which networks are measured."""

import numpy as np

from gatprune_jax.channels.graph import ChannelGraph

# An uneven mask keeps a share of each group that is drawn between these parts of the network's.
_SPREAD = (0.4, 1.6)


def random_widths(
  graph: ChannelGraph,
  rng: np.random.Generator,
  low: float = 0.1,
  high: float = 1.0,
  multiple: int = 1,
) -> np.ndarray:
  """Returns a mask `[N]` that keeps a random share of each group, and one channel at least.

  Args:
    graph: the network's channels.
    rng: draws the shares, and the channels.
    low: smallest share.
    high: largest share.
    multiple: the number of channels that are kept is rounded up to a multiple of it, or to all.
  """
  mask = np.zeros(graph.num_channels, bool)
  for group in graph.groups:
    width = len(group.channels)
    kept = min(width, multiple * int(np.ceil(rng.uniform(low, high) * width / multiple)))
    mask[rng.choice(group.channels, kept, replace=False)] = True
  return mask


def uneven_mask(
  graph: ChannelGraph, rng: np.random.Generator, share: float, multiple: int
) -> np.ndarray:
  """Returns a mask `[N]` that keeps about a share of the channels, unevenly over the groups.

  Args:
    graph: the network's channels.
    rng: draws the share of each group, and the channels.
    share: about what share of the channels is kept.
    multiple: as in `random_widths`.
  """
  low, high = (share * part for part in _SPREAD)
  return random_widths(graph, rng, low, min(high, 1.0), multiple)
