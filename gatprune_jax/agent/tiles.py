"""The edges of the channel graph as square tiles, for a kernel that takes them one by one.

A set of edges is a grid of tiles: rows of receivers, columns of senders. The kernel's programs work
through one row each, and through one column each in the backward pass, however large the sets are:
one program serves all sets of a network.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gatprune_jax.agent.blocks import NOWHERE, Bipartite, Block, cut
from gatprune_jax.agent.places import Places, find_places

SIDE = 64  # senders, and receivers, of a tile
_LONGEST = 8 * SIDE  # of a grid's sides: programs are even, and many


class Tiles(NamedTuple):
  """Complete bipartite sets as grids of tiles; I rows and J columns of P tiles in all grids.

  A row's tiles, and a column's, are a number of equal steps through `norms` from the first one.
  Places of nobody fill tiles up; their edges do not exist.
  """

  senders: Places  # [J, SIDE], of each column
  receivers: Places  # [I, SIDE], of each row
  flags: np.ndarray  # [I, len(FLAGS)] float32
  rows: np.ndarray  # [I, 4] int32: first column, number of tiles, first tile, step to the next
  columns: np.ndarray  # [J, 4] int32: first row, number of tiles, first tile, step to the next
  norms: np.ndarray  # [1 + P, SIDE, SIDE] float32, receivers first; zeros for all sets without any


def tile_sets(sets: Sequence[Bipartite], num_nodes: int) -> Tiles:
  """Cuts sets of edges between nodes into grids of tiles."""
  senders, receivers, flags, rows, columns = [], [], [], [], []
  norms = [np.zeros((SIDE, SIDE), np.float32)]
  for grid in (grid for edges in sets for grid in cut(edges, _LONGEST)):
    sent, received = _in_tiles(grid.senders), _in_tiles(grid.receivers)
    width, height = len(sent), len(received)
    tile, across, down = (0, 0, 0) if grid.norms is None else (len(norms), 1, width)
    first_row, first_column = len(rows), len(columns)
    rows += [(first_column, width, tile + row * down, across) for row in range(height)]
    columns += [(first_row, height, tile + column * across, down) for column in range(width)]
    senders.append(sent)
    receivers.append(received)
    flags.append(np.broadcast_to(grid.flags, (height, len(grid.flags))))
    if grid.norms is not None:
      norms += list(_norms_in_tiles(grid.norms.T, height, width))
  return Tiles(
    find_places(np.concatenate(senders), num_nodes),
    find_places(np.concatenate(receivers), num_nodes),
    np.concatenate(flags).astype(np.float32),
    np.array(rows, np.int32),
    np.array(columns, np.int32),
    np.stack(norms),
  )


def as_block(tiles: Tiles) -> Block:
  """The same edges as one slice of P sets."""
  row = np.repeat(np.arange(len(tiles.rows)), tiles.rows[:, 1])
  along = [np.arange(number) for number in tiles.rows[:, 1]]
  column = np.concatenate([first + i for first, i in zip(tiles.rows[:, 0], along, strict=True)])
  tile = np.concatenate([a + i * step for (_, _, a, step), i in zip(tiles.rows, along, strict=True)])
  return Block(
    tiles.senders.ids[column][None],
    tiles.receivers.ids[row][None],
    tiles.flags[row][None],
    tiles.norms[tile].transpose(0, 2, 1)[None],
  )


def _in_tiles(ids: np.ndarray) -> np.ndarray:
  """`[n]` to `[ceil(n / SIDE), SIDE]`."""
  filled = np.pad(ids, (0, -len(ids) % SIDE), constant_values=NOWHERE)
  return filled.reshape(-1, SIDE).astype(np.int32)


def _norms_in_tiles(norms: np.ndarray, height: int, width: int) -> np.ndarray:
  """`[R, S]` to `[height * width, SIDE, SIDE]`."""
  missing = height * SIDE - len(norms), width * SIDE - len(norms.T)
  whole = np.pad(norms.astype(np.float32), [(0, number) for number in missing])
  parts = whole.reshape(height, SIDE, width, SIDE).transpose(0, 2, 1, 3)
  return parts.reshape(-1, SIDE, SIDE)
