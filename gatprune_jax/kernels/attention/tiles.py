"""The edges of the channel graph as square tiles, for kernels that take them one by one.

A set of edges is a grid of tiles: rows of receivers, columns of senders. In the forward pass a
program works through one row, in the backward pass through one column, and leaves sums in the
places of its nodes; then each node's places are gathered. Nothing is added to by two programs, so
that sums are the same in every run.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gatprune_jax.kernels.attention.edges import NOWHERE, Bipartite, cut

SIDE = 32  # senders, and receivers, of a tile
NODES_AT_ONCE = 8  # nodes whose places one program gathers
PLACES_AT_ONCE = 16  # of each node
_LONGEST = 512  # of a grid's sides: programs are even, and many


class Ends(NamedTuple):
  """Rows of receivers, or columns of senders: L lines of SIDE places, each of a node or nobody."""

  ids: np.ndarray  # [L, SIDE] int32, nodes in places; n and above are nobody
  # [L, 4] int32: a line's first line across, how many, the first tile, the step to the next tile
  lines: np.ndarray
  flags: np.ndarray  # [L, len(FLAGS)] float32, of a line's edges
  # [N, K] int32, places of nodes in flat order, L * SIDE and above being none; N and K are the
  # numbers of nodes, and of places at most, filled up to multiples of what is gathered at once.
  slots: np.ndarray
  chunks: np.ndarray  # [N / NODES_AT_ONCE] int32, of PLACES_AT_ONCE, that hold all there are


class Tiles(NamedTuple):
  """Complete bipartite sets as grids of tiles; tile 0 has no norms, for all sets without any."""

  receivers: Ends
  senders: Ends
  norms: np.ndarray  # [P, SIDE, SIDE] float32, receivers first
  transposed: np.ndarray  # the same, senders first: columns read them in this order


def tile_sets(sets: Sequence[Bipartite], num_nodes: int) -> Tiles:
  """Cuts sets of edges between n nodes into grids of tiles."""
  receivers, senders, rows, columns, row_flags, column_flags = [], [], [], [], [], []
  norms = [np.zeros((SIDE, SIDE), np.float32)]
  grids = [grid for edges in sets for grid in cut(edges, _LONGEST)]
  longest_side = lambda grid: max(len(grid.senders), len(grid.receivers))
  for grid in sorted(grids, key=longest_side, reverse=True):  # long programs start first
    received, sent = _in_lines(grid.receivers), _in_lines(grid.senders)
    height, width = len(received), len(sent)
    tile, down, across = (0, 0, 0) if grid.norms is None else (len(norms), width, 1)
    first_row, first_column = len(rows), len(columns)
    rows += [(first_column, width, tile + i * down, across) for i in range(height)]
    columns += [(first_row, height, tile + j * across, down) for j in range(width)]
    row_flags += height * [grid.flags]
    column_flags += width * [grid.flags]
    receivers.append(received)
    senders.append(sent)
    if grid.norms is not None:
      norms += list(_in_tiles(grid.norms.T, height, width))
  norms = np.stack(norms)
  return Tiles(
    _ends(receivers, rows, row_flags, num_nodes),
    _ends(senders, columns, column_flags, num_nodes),
    norms,
    np.ascontiguousarray(norms.transpose(0, 2, 1)),
  )


def _ends(ids: list, lines: list, flags: list, num_nodes: int) -> Ends:
  ids = np.concatenate(ids)
  flat = ids.ravel()
  order = np.argsort(flat, kind="stable")[: np.count_nonzero(flat < num_nodes)]
  counts = np.bincount(flat[order], minlength=num_nodes)
  rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
  counts = np.pad(counts, (0, -num_nodes % NODES_AT_ONCE))
  chunks = -(-counts.reshape(-1, NODES_AT_ONCE).max(1) // PLACES_AT_ONCE)
  slots = np.full((len(counts), PLACES_AT_ONCE * chunks.max()), flat.size, np.int32)
  slots[flat[order], rank] = order
  return Ends(
    ids, np.array(lines, np.int32), np.array(flags, np.float32), slots, chunks.astype(np.int32)
  )


def _in_lines(ids: np.ndarray) -> np.ndarray:
  """`[n]` to `[ceil(n / SIDE), SIDE]`."""
  filled = np.pad(ids, (0, -len(ids) % SIDE), constant_values=NOWHERE)
  return filled.reshape(-1, SIDE).astype(np.int32)


def _in_tiles(norms: np.ndarray, height: int, width: int) -> np.ndarray:
  """`[R, S]` to `[height * width, SIDE, SIDE]`."""
  missing = height * SIDE - len(norms), width * SIDE - len(norms.T)
  whole = np.pad(norms.astype(np.float32), [(0, number) for number in missing])
  parts = whole.reshape(height, SIDE, width, SIDE).transpose(0, 2, 1, 3)
  return parts.reshape(-1, SIDE, SIDE)
