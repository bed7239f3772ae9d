"""The two backward kernels of attention on tiles.

The first kernel sums gradients over each column of tiles, and the second kernel sums over all
columns that contain a node. The symbols are explained in the docstring of the module `softmax`.
"""

from collections.abc import Sequence

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from gatprune_jax.kernels.attention.softmax import slope
from gatprune_jax.kernels.attention.tile_programs import (
  LOG2_E,
  block_nodes,
  block_places,
  call_kernel,
  flat_places,
  number_and_features,
  write_block,
)
from gatprune_jax.kernels.attention.tiles import SIDE, Ends, Tiles


def sum_columns(
  send: jax.Array,
  receive: jax.Array,
  x: jax.Array,
  edge: jax.Array,
  shared: jax.Array,
  log_total: jax.Array,
  d_mean: jax.Array,
  offset: jax.Array,
  tiles: Tiles,
) -> list[jax.Array]:
  """Computes gradients summed over each column's edges.

  Args:
    send: s, `[H, n]`.
    receive: t, `[H, n]`.
    x: `[H, n, D]`.
    edge: the weight of each edge feature in the logit, `[E, H]`; the first is a, for the norms.
    shared: c, the term that the flags of a column's edges add to the logits, `[J, H]` for J
      columns.
    log_total: the logarithm of the sum of exp(l) in units of ln 2, from `merge_rows`, `[H, N]` for
      N >= n.
    d_mean: Y, the cotangent of the means, `[H, n, D]`.
    offset: Y . mean, `[H, n]`.
    tiles: the edges.

  Returns:
    With p summing to one over all edges of a receiver, g = LeakyReLU'(u) and
    du = p g (Y . x - offset): the sums of du and of p Y for every place of every column,
    `[H, J, SIDE]` and `[H, J, SIDE, D]`, and the sums of du f for every column, `[H, J]`.
  """
  pair = number_and_features(x, (len(tiles.senders.ids), SIDE))
  ends = [*tiles.senders[:2], tiles.receivers.ids, tiles.transposed]
  inputs = [*ends, edge, shared, send, receive, x, log_total, d_mean, offset]
  return call_kernel(_column_kernel, inputs, [*pair, pair[0][:2]], pair[0][:2])


def _column_kernel(
  senders, lines, receivers, norms, edge, shared, send, receive, x, log_total, d_mean, offset,
  d_send, d_x, d_weight,
):  # fmt: skip
  """Computes the gradients of one column of tiles for one head; see `sum_columns`."""
  h, column = pl.program_id(0), pl.program_id(1)
  num_nodes = x.shape[1]
  first, number, first_tile, step = (lines[column, i] for i in range(4))
  ids = senders[column]
  here = jnp.minimum(ids, num_nodes - 1)
  sent = LOG2_E * (send[h, here] + shared[column, h])
  s, values = jnp.where(ids < num_nodes, sent, -jnp.inf)[:, None], x[h, here]
  a = LOG2_E * edge[0, h]

  def tile(index, carry):
    d_s, d_values, d_a = carry
    ids, f = receivers[first + index], norms[first_tile + index * step]
    there = jnp.minimum(ids, num_nodes - 1)
    raw = s + LOG2_E * receive[h, there][None] + a * f
    g = slope(raw)
    total = jnp.where(ids < num_nodes, log_total[h, there], jnp.inf)
    p, y = jnp.exp2(g * raw - total[None]), d_mean[h, there]
    d_raw = g * p * (jnp.dot(values, y.T) - offset[h, there][None])
    return d_s + d_raw.sum(1), d_values + jnp.dot(p, y), d_a + (d_raw * f).sum()

  start = tuple(jnp.zeros(shape, x.dtype) for shape in (SIDE, values.shape, ()))
  d_s, d_values, d_a = jax.lax.fori_loop(0, number, tile, start)
  d_send[h, column], d_x[h, column], d_weight[h, column] = d_s, d_values, d_a


def add_columns(
  own: Sequence[jax.Array], columns: Sequence[jax.Array], senders: Ends
) -> list[jax.Array]:
  """Adds the sums over each node's places in columns to the values of the node itself.

  Args:
    own: the values of each node, `[H, n]` and `[H, n, D]`.
    columns: the two arrays to sum, for every place, `[H, J, SIDE]` and `[H, J, SIDE, D]`.
    senders: the places of nodes in columns.

  Returns:
    The two sums, `[H, N]` and `[H, N, D]`, where nodes are padded to N >= n.
  """
  return call_kernel(
    _add_kernel,
    [senders.slots, senders.chunks, *own, *flat_places(columns)],
    number_and_features(own[1], (len(senders.slots),)),
    (len(own[0]), len(senders.chunks)),
  )


def _add_kernel(slots, chunks, own, own_x, part, part_x, output, output_x):
  """Computes the sums of one block of nodes for one head; see `add_columns`."""
  h, block = pl.program_id(0), pl.program_id(1)
  here = block_nodes(block, own.shape[1])

  def add(chunk, sums):
    there, exists = block_places(slots, block, chunk, part.shape[1])
    more = jnp.where(exists, part[h, there], 0.0), part_x[h, there]
    more = more[0], jnp.where(exists[..., None], more[1], 0.0)
    return tuple(old + new.sum(1) for old, new in zip(sums, more, strict=True))

  sums = jax.lax.fori_loop(0, chunks[block], add, (own[h, here], own_x[h, here]))
  write_block(h, block, (output, output_x), sums)
