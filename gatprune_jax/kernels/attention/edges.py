"""The edges of a graph as complete bipartite sets, whatever they are computed on."""

from typing import NamedTuple

import numpy as np

# What an edge knows: the standardised log norm of the kernel between two channels, then flags.
EDGE_FEATURES = ("log_norm", "forward", "backward", "dense", "layer", "self")
FLAGS = EDGE_FEATURES[1:]
SELF = EDGE_FEATURES.index("self")

NOWHERE = np.iinfo(np.int32).max  # an id that no node has


class Bipartite(NamedTuple):
  """A complete bipartite set of edges: every sender to every receiver."""

  senders: np.ndarray  # [S] node ids, distinct
  receivers: np.ndarray  # [R] node ids, distinct
  flags: np.ndarray  # [len(FLAGS)], the features that all edges share
  norms: np.ndarray | None  # [S, R], the feature that edges have of their own; None: it is zero


def flags(**values: bool) -> np.ndarray:
  """The named flags of an edge, `[len(FLAGS)]`; those not named are off."""
  return np.array([values.get(name, False) for name in FLAGS], np.float32)


def cut(edges: Bipartite, longest: int) -> list[Bipartite]:
  """A set of edges as sets whose sides are so long at most."""
  starts = [
    (slice(i, i + longest), slice(j, j + longest))
    for i in range(0, len(edges.senders), longest)
    for j in range(0, len(edges.receivers), longest)
  ]
  return [
    Bipartite(
      edges.senders[sent],
      edges.receivers[received],
      edges.flags,
      None if edges.norms is None else edges.norms[sent, received],
    )
    for sent, received in starts
  ]
