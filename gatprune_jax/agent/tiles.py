"""The edges of the channel graph as square tiles, for a kernel that takes them one by one.

A set of edges is a grid of tiles: rows of receivers, columns of senders. The kernel's programs work
through one row each, and through one column each in the backward pass, however large the sets are:
one program serves all sets of a network.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gatprune_jax.agent.blocks import NOWHERE, Bipartite, Block, cut

SIDE = 64  # senders, and receivers, of a tile
_LONGEST = 8 * SIDE  # of a grid's sides: programs are even, and many


class Tiles(NamedTuple):
  """Complete bipartite sets as grids of tiles; I rows and J columns of P tiles in all grids.

  Ids at or above the number of nodes fill tiles up; their edges do not exist. A grid's tiles lie
  row by row in `norms`.
  """

  senders: np.ndarray  # [J, SIDE] int32 node ids, of each column
  receivers: np.ndarray  # [I, SIDE] int32 node ids, of each row
  flags: np.ndarray  # [I, len(FLAGS)] float32
  rows: np.ndarray  # [I, 3] int32: first column, how many, first tile
  columns: np.ndarray  # [J, 4] int32: first row, how many, first tile, tiles to the next row's
  norms: np.ndarray | None  # [P, SIDE, SIDE] float32, of receivers (first) and senders


def tile_sets(sets: Sequence[Bipartite]) -> Tiles:
  """Cuts sets of edges into grids of tiles; where some have norms, those of the others are zero."""
  senders, receivers, flags, rows, columns, norms = [], [], [], [], [], []
  has_norms = any(edges.norms is not None for edges in sets)
  for grid in (grid for edges in sets for grid in cut(edges, _LONGEST)):
    sent, received = _in_tiles(grid.senders), _in_tiles(grid.receivers)
    width, height, tile = len(sent), len(received), len(norms)
    first_row, first_column = len(rows), len(columns)
    rows += [(first_column, width, tile + width * row) for row in range(height)]
    columns += [(first_row, height, tile + column, width) for column in range(width)]
    senders.append(sent)
    receivers.append(received)
    flags.append(np.broadcast_to(grid.flags, (height, len(grid.flags))))
    norms += list(_norms_in_tiles(grid, height, width)) if has_norms else height * width * [None]
  return Tiles(
    np.concatenate(senders),
    np.concatenate(receivers),
    np.concatenate(flags).astype(np.float32),
    np.array(rows, np.int32),
    np.array(columns, np.int32),
    np.stack(norms) if has_norms else None,
  )


def as_block(tiles: Tiles) -> Block:
  """The same edges as one slice of P sets."""
  num_columns = tiles.rows[:, 1]
  row = np.repeat(np.arange(len(tiles.rows)), num_columns)
  column = np.concatenate([np.arange(first, first + num) for first, num, _ in tiles.rows])
  norms = None if tiles.norms is None else tiles.norms.transpose(0, 2, 1)[None]
  return Block(
    tiles.senders[column][None], tiles.receivers[row][None], tiles.flags[row][None], norms
  )


def _in_tiles(ids: np.ndarray) -> np.ndarray:
  """`[n]` to `[ceil(n / SIDE), SIDE]`."""
  filled = np.pad(ids, (0, -len(ids) % SIDE), constant_values=NOWHERE)
  return filled.reshape(-1, SIDE).astype(np.int32)


def _norms_in_tiles(grid: Bipartite, height: int, width: int) -> np.ndarray:
  """`[S, R]` to `[height * width, SIDE, SIDE]`, receivers first."""
  whole = np.zeros((height * SIDE, width * SIDE), np.float32)
  if grid.norms is not None:
    whole[: len(grid.receivers), : len(grid.senders)] = grid.norms.T
  parts = whole.reshape(height, SIDE, width, SIDE).transpose(0, 2, 1, 3)
  return parts.reshape(-1, SIDE, SIDE)
