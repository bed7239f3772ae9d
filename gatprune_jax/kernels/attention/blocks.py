"""The edges of the channel graph as bipartite blocks of few and bounded shapes.

Every edge between S senders and R receivers is also an edge between some part of the senders and
some part of the receivers, and attention adds up over a receiver's blocks. So wide layers are cut
into tiles, tiles of one shape are stacked, and long stacks are worked off in slices: how many
programs there are to compile, and how large they are, does not depend on the network.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gatprune_jax.kernels.attention.edges import NOWHERE, Bipartite, cut

TILE = 128  # the longest side of a block whose edges are evaluated one by one
_FEATURES = 16  # numbers a head holds of a node, where it holds one of an edge


class Tiling(NamedTuple):
  """How sets of edges are cut and stacked for a kind of processor."""

  shortest: int  # the least power of two that a side is padded to
  at_once: int  # edges in a slice; a node counts as _FEATURES of them
  sorts_from: int  # sets without norms sort where both sides are longer


# On CPU, padding costs, several heads' logits of a slice stay in the cache, and sets of up to two
# tiles a side are about as fast edge by edge, without programs of their own. Accelerators want few
# and large operations: one shape of tiles, and sorting only where edges are very many.
_CPU = Tiling(16, 2**18, 2 * TILE)
_ACCELERATOR = Tiling(TILE, 2**24, 8 * TILE)


def tiling_for(backend: str) -> Tiling:
  """The tiling for a backend as `jax.default_backend()` names it."""
  return _CPU if backend == "cpu" else _ACCELERATOR


class Block(NamedTuple):
  """M slices of K complete bipartite sets of one shape.

  Ids at or above the number of nodes fill up the shape; their edges do not exist.
  """

  senders: np.ndarray  # [M, K, S] int32 node ids, distinct within a set
  receivers: np.ndarray  # [M, K, R] int32 node ids, distinct within a set
  flags: np.ndarray  # [M, K, len(FLAGS)] float32
  norms: np.ndarray | None  # [M, K, S, R] float32


def sorts(num_senders: int, num_receivers: int, has_norms: bool) -> bool:
  """Whether a set of edges is evaluated by sorting its senders, not edge by edge.

  Sorting needs edges that differ in nothing but their ends. `stack_blocks` leaves sets longer than
  a tile where it pays, and cuts all others.
  """
  return not has_norms and min(num_senders, num_receivers) > TILE


def stack_blocks(sets: Sequence[Bipartite], tiling: Tiling) -> tuple[Block, ...]:
  """Cuts sets of edges into tiles where they do not sort, pads them, and stacks equal shapes.

  Sides become powers of two from the shortest on, so that there are few shapes of tiles (at most
  sixteen), besides those between one node and many.
  """
  stacks: dict[tuple, list[Bipartite]] = {}
  for edges in sets:
    for piece in _pieces(edges, tiling):
      padded = _padded(piece, tiling)
      shape = (len(padded.senders), len(padded.receivers), padded.norms is None)
      stacks.setdefault(shape, []).append(padded)
  return tuple(_sliced(stack, tiling) for stack in stacks.values())


def _pieces(edges: Bipartite, tiling: Tiling) -> list[Bipartite]:
  shorter = min(len(edges.senders), len(edges.receivers))
  return [edges] if edges.norms is None and shorter > tiling.sorts_from else cut(edges, TILE)


def _padded(edges: Bipartite, tiling: Tiling) -> Bipartite:
  """One shape for every star's piece; sides that are powers of two for all others."""
  num_senders, num_receivers = len(edges.senders), len(edges.receivers)
  side = lambda size: max(tiling.shortest, 1 << (size - 1).bit_length())
  if num_senders == 1:
    more = (0, TILE - num_receivers)
  elif num_receivers == 1:
    more = (TILE - num_senders, 0)
  else:
    more = (side(num_senders) - num_senders, side(num_receivers) - num_receivers)
  return Bipartite(
    np.pad(edges.senders, (0, more[0]), constant_values=NOWHERE),
    np.pad(edges.receivers, (0, more[1]), constant_values=NOWHERE),
    edges.flags,
    None if edges.norms is None else np.pad(edges.norms, ((0, more[0]), (0, more[1]))),
  )


def _sliced(stack: list[Bipartite], tiling: Tiling) -> Block:
  """Stacks sets of one shape into slices of so many edges at most, the last filled up."""
  senders, receivers, _, norms = stack[0]
  work = _FEATURES * (len(senders) + len(receivers))
  if not sorts(len(senders), len(receivers), norms is not None):
    work += len(senders) * len(receivers)
  num_slices = -(-len(stack) // max(1, tiling.at_once // work))
  per_slice = -(-len(stack) // num_slices)
  missing = num_slices * per_slice - len(stack)

  def stacked(field, dtype, fill):
    rows = [getattr(edges, field) for edges in stack]
    rows += missing * [np.full_like(rows[0], fill)]
    return np.stack(rows).reshape(num_slices, per_slice, *rows[0].shape).astype(dtype)

  return Block(
    stacked("senders", np.int32, NOWHERE),
    stacked("receivers", np.int32, NOWHERE),
    stacked("flags", np.float32, 0),
    None if norms is None else stacked("norms", np.float32, 0),
  )
