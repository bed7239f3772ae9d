"""The edges of the channel graph as square tiles, for kernels that process tiles one by one.

A set of edges is a grid of tiles, with rows of receivers and columns of senders. One program of a
kernel goes through one row in the forward pass, and through one column in the backward pass. The
program writes the sums for each of its nodes to the node's place in the row or column. A node has
one place for each row or column that contains the node, and a second kernel sums over these places.
No two programs add to the same memory, so that sums are equal in every run.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gatprune_jax.kernels.attention.edges import NOWHERE, Bipartite, cut_edges

SIDE = 32  # the number of senders, and the number of receivers, of a tile
NODES_AT_ONCE = 8  # nodes whose places one program gathers
PLACES_AT_ONCE = 16  # places of each node that one program gathers at once
# The longest side of a grid, in nodes. Larger sets are cut, so that there are many programs, all of
# about equal length.
_LONGEST = 512


class Ends(NamedTuple):
  """All rows of receivers, or all columns of senders: L lines of SIDE places for nodes."""

  ids: np.ndarray  # [L, SIDE] int32, the node in each place; ids of n and above are padding
  # [L, 4] int32. A row crosses columns, and a column crosses rows; each crossing is a tile. The
  # numbers are the first line that is crossed, how many lines are crossed, the index of the first
  # tile in `Tiles.norms`, and the step from the index of one tile to the index of the next tile.
  lines: np.ndarray
  flags: np.ndarray  # [L, len(FLAGS)] float32, the flags of a line's edges
  # [N, K] int32, the places of each node as indices into the flattened lines; an index of L * SIDE
  # or above is padding. N is the number of nodes, padded to a multiple of NODES_AT_ONCE. K is the
  # largest number of places of a node, padded to a multiple of PLACES_AT_ONCE.
  slots: np.ndarray
  # [N / NODES_AT_ONCE] int32: for each block of nodes, how many chunks of PLACES_AT_ONCE entries of
  # `slots` hold all places of the block.
  chunks: np.ndarray


class Tiles(NamedTuple):
  """Complete bipartite sets as grids of tiles.

  All tiles of sets without norms use tile 0, whose norms are zero.
  """

  receivers: Ends
  senders: Ends
  norms: np.ndarray  # [P, SIDE, SIDE] float32, receivers first
  transposed: np.ndarray  # [P, SIDE, SIDE], norms with senders first, for the column kernel


def tile_sets(sets: Sequence[Bipartite], num_nodes: int) -> Tiles:
  """Cuts sets of edges into grids of tiles.

  Args:
    sets: the edges.
    num_nodes: the number of nodes n; node ids are 0 to n - 1.
  """
  receivers, senders, rows, columns, row_flags, column_flags = [], [], [], [], [], []
  norms = [np.zeros((SIDE, SIDE), np.float32)]
  grids = [grid for edges in sets for grid in cut_edges(edges, _LONGEST)]
  longest_side = lambda grid: max(len(grid.senders), len(grid.receivers))
  for grid in sorted(grids, key=longest_side, reverse=True):  # the longest programs start first
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
  """Pads ids `[n]` and cuts them into lines, int32 `[ceil(n / SIDE), SIDE]`."""
  filled = np.pad(ids, (0, -len(ids) % SIDE), constant_values=NOWHERE)
  return filled.reshape(-1, SIDE).astype(np.int32)


def _in_tiles(norms: np.ndarray, height: int, width: int) -> np.ndarray:
  """Pads norms `[R, S]` and cuts them into tiles, `[height * width, SIDE, SIDE]`."""
  missing = height * SIDE - len(norms), width * SIDE - len(norms.T)
  whole = np.pad(norms.astype(np.float32), [(0, number) for number in missing])
  parts = whole.reshape(height, SIDE, width, SIDE).transpose(0, 2, 1, 3)
  return parts.reshape(-1, SIDE, SIDE)
