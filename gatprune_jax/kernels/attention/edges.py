"""The edges of a graph as complete bipartite sets, independent of the processor."""

from typing import NamedTuple

import numpy as np

# Features of an edge: the standardised log norm of the kernel between two channels, then flags.
EDGE_FEATURES = ("log_norm", "forward", "backward", "dense", "layer", "self")
FLAGS = EDGE_FEATURES[1:]
SELF = EDGE_FEATURES.index("self")

NOWHERE = np.iinfo(np.int32).max  # id of padding; no node has this id


class Bipartite(NamedTuple):
  """A complete bipartite set of edges: one edge from every sender to every receiver."""

  senders: np.ndarray  # [S] node ids, distinct
  receivers: np.ndarray  # [R] node ids, distinct
  flags: np.ndarray  # [len(FLAGS)], the features that all edges of the set share
  norms: np.ndarray | None  # [S, R], the log_norm feature of each edge; None means all zero


def flags(**values: bool) -> np.ndarray:
  """Returns the flags of an edge, `[len(FLAGS)]` float32; flags not given are off (zero)."""
  return np.array([values.get(name, False) for name in FLAGS], np.float32)


def cut_edges(edges: Bipartite, longest: int) -> list[Bipartite]:
  """Cuts a set of edges into sets with at most `longest` senders and `longest` receivers each."""
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
