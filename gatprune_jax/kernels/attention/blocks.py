"""The edges of the channel graph as bipartite blocks of few and bounded shapes.

A complete bipartite set of edges can be cut into smaller ones, because each edge joins one part of
the senders to one part of the receivers, and the sums of attention add up over all blocks of a
receiver. Therefore sets of wide layers are cut into tiles, tiles of equal shape are stacked, and
long stacks are processed slice by slice. The number and the size of the programs to compile for
tiles then do not depend on the network. Only sets that are evaluated by sorting are not cut.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gatprune_jax.kernels.attention.edges import NOWHERE, Bipartite, cut_edges

TILE = 128  # the longest side of a block whose edges are evaluated one by one
_FEATURES = 16  # numbers that a head stores for a node; for an edge, a head stores one number


class Tiling(NamedTuple):
  """Settings by which sets of edges are cut and stacked for a kind of processor."""

  shortest: int  # the smallest power of two that a side is padded to
  at_once: int  # the largest number of edges in a slice; a node counts as _FEATURES edges
  sorts_from: int  # sets without norms are sorted if both sides are longer than this


# On CPU, padding costs time, so sides as short as 16 are allowed. A slice is so small that the
# logits of several heads stay in the cache. Sets with up to two tiles on a side are evaluated edge
# by edge, which is about as fast as sorting and needs no further program to compile. Accelerators
# are fastest with few and large operations, so they use a single shape of tiles, and they sort only
# sets with very many edges.
_CPU = Tiling(16, 2**18, 2 * TILE)
_ACCELERATOR = Tiling(TILE, 2**24, 8 * TILE)


def tiling_for(backend: str) -> Tiling:
  """Returns the tiling for a backend, which is named as by `jax.default_backend()`."""
  return _CPU if backend == "cpu" else _ACCELERATOR


class Block(NamedTuple):
  """M slices of K complete bipartite sets, all with S senders and R receivers.

  Ids at or above the number of nodes are padding, and edges of padding do not exist.
  """

  senders: np.ndarray  # [M, K, S] int32 node ids, distinct within a set
  receivers: np.ndarray  # [M, K, R] int32 node ids, distinct within a set
  flags: np.ndarray  # [M, K, len(FLAGS)] float32
  norms: np.ndarray | None  # [M, K, S, R] float32


def sorts(num_senders: int, num_receivers: int, has_norms: bool) -> bool:
  """Returns whether a set of edges is evaluated by sorting its senders, not edge by edge.

  Sorting requires that the edges of a set differ only in sender and receiver, so that there are no
  norms. `stack_blocks` leaves a set longer than a tile only where sorting is faster, and cuts all
  other sets into tiles, so every block with two sides longer than a tile is sorted.

  Args:
    num_senders: S of the set.
    num_receivers: R of the set.
    has_norms: whether each edge has a norm of its own.
  """
  return not has_norms and min(num_senders, num_receivers) > TILE


def stack_blocks(sets: Sequence[Bipartite], tiling: Tiling) -> tuple[Block, ...]:
  """Cuts sets of edges into tiles unless they are to be sorted, pads them, and stacks equal shapes.

  Sides are padded to powers of two, at least `tiling.shortest`, so that tiles have few shapes (at
  most sixteen). Sets between one node and many have two further shapes.
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
  return [edges] if edges.norms is None and shorter > tiling.sorts_from else cut_edges(edges, TILE)


def _padded(edges: Bipartite, tiling: Tiling) -> Bipartite:
  """Pads a piece: sets between one node and many to one length, other sides to powers of two."""
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
  """Stacks sets of one shape into slices of limited size, and pads the last slice.

  A slice holds at most `tiling.at_once` edges, or a single set. A node counts as _FEATURES edges,
  and the edges of sets that are sorted do not count.
  """
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
