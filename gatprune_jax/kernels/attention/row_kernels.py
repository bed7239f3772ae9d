"""The two forward kernels of attention on tiles.

The first kernel sums over each row of tiles, and the second kernel sums over all rows that contain
a node. The symbols are explained in the docstring of the module `softmax`.
"""

from collections.abc import Sequence

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from gatprune_jax.kernels.attention.edges import SELF
from gatprune_jax.kernels.attention.softmax import slope
from gatprune_jax.kernels.attention.tile_programs import (
  LOG2_E,
  LOWEST,
  as_wide_as,
  block_nodes,
  block_places,
  call_kernel,
  flat_places,
  number_and_features,
  write_block,
)
from gatprune_jax.kernels.attention.tiles import SIDE, Ends, Tiles


def sum_rows(
  send: jax.Array,
  receive: jax.Array,
  x: jax.Array,
  edge: jax.Array,
  shared: jax.Array,
  tiles: Tiles,
  sloped: bool,
) -> list[jax.Array]:
  """Computes sums over each row's edges, relative to the largest logit of each receiver in the row.

  The kernel goes through the senders tile by tile. Where a tile has a larger logit than all tiles
  before, the sums so far are scaled down (Milakov & Gimelshein 2018, arXiv 1805.02867; Dao et al.
  2022, arXiv 2205.14135).

  Args:
    send: s, `[H, n]`.
    receive: t, `[H, n]`.
    x: `[H, n, D]`, where D is a power of two and at least 16.
    edge: the weight of each edge feature in the logit, `[E, H]`; the first is a, for the norms.
    shared: c, the term that the flags of a row's edges add to the logits, `[I, H]` for I rows.
    tiles: the edges.
    sloped: whether the sums with g are computed; only the gradient needs these two sums.

  Returns:
    With u = s + t + c + a f, logits l = LeakyReLU(u), g = LeakyReLU'(u) and p = exp(l - largest):
    the largest l in units of ln 2, and the sums of p and p x, and of p g and p g x if `sloped`, for
    every place of every row, `[H, I, SIDE]` or `[H, I, SIDE, D]`.
  """
  pair = number_and_features(x, (len(tiles.receivers.ids), SIDE))
  return call_kernel(
    _row_kernel,
    [*tiles.receivers[:2], tiles.senders.ids, tiles.norms, edge, shared, send, receive, x],
    [pair[0], *pair, *(pair if sloped else [])],
    pair[0][:2],
  )


def _row_kernel(receivers, lines, senders, norms, edge, shared, send, receive, x, *outputs):
  """Computes the sums of one row of tiles for one head; see `sum_rows`."""
  h, row = pl.program_id(0), pl.program_id(1)
  num_nodes = x.shape[1]
  first, number, first_tile, step = (lines[row, i] for i in range(4))
  here = jnp.minimum(receivers[row], num_nodes - 1)
  t = LOG2_E * (receive[h, here] + shared[row, h])[:, None]
  a = LOG2_E * edge[0, h]

  def tile(index, carry):
    largest, *sums = carry
    ids = senders[first + index]
    there = jnp.minimum(ids, num_nodes - 1)
    s = jnp.where(ids < num_nodes, LOG2_E * send[h, there], -jnp.inf)[None]
    raw = t + s + a * norms[first_tile + index * step]
    g = slope(raw)
    logits = g * raw
    new = jnp.maximum(largest, logits.max(1))
    scale, p = jnp.exp2(largest - new), jnp.exp2(logits - new[:, None])
    values = x[h, there]
    added = [part for q in (p, g * p)[: len(sums) // 2] for part in (q.sum(1), jnp.dot(q, values))]
    return (
      new,
      *(as_wide_as(scale, old) * old + add for old, add in zip(sums, added, strict=True)),
    )

  pair = [jnp.zeros(shape, x.dtype) for shape in (SIDE, (SIDE, x.shape[-1]))]
  start = (jnp.full(SIDE, LOWEST, x.dtype), *(len(outputs) // 2 * pair))
  for output, value in zip(outputs, jax.lax.fori_loop(0, number, tile, start), strict=True):
    output[h, row] = value


def merge_rows(
  send: jax.Array,
  receive: jax.Array,
  x: jax.Array,
  edge: jax.Array,
  rows: Sequence[jax.Array],
  receivers: Ends,
) -> list[jax.Array]:
  """Computes means over all edges of each node, one edge from the node to itself included.

  Args:
    send: s, `[H, n]`.
    receive: t, `[H, n]`.
    x: `[H, n, D]`.
    edge: the weight of each edge feature in the logit, `[E, H]`.
    rows: the result of `sum_rows`.
    receivers: the places of nodes in rows.

  Returns:
    The logarithm of the sum of exp(l), in units of ln 2, and the sum of p x, with weights p that
    sum to one; then the sums of p g and of p g x, if `rows` has the sums with g. The shapes are
    `[H, N]` or `[H, N, D]`, where nodes are padded to N >= n.
  """
  pair = number_and_features(x, (len(receivers.slots),))
  return call_kernel(
    _merge_kernel,
    [receivers.slots, receivers.chunks, send, receive, x, edge, *flat_places(rows)],
    [*pair, *(pair if len(rows) == 5 else [])],
    (len(x), len(receivers.chunks)),
  )


def _merge_kernel(slots, chunks, send, receive, x, edge, largest, *refs):
  """Computes the means of one block of nodes for one head; see `merge_rows`."""
  h, block = pl.program_id(0), pl.program_id(1)
  parts, outputs = refs[: len(refs) // 2], refs[len(refs) // 2 :]
  here = block_nodes(block, x.shape[1])
  raw = LOG2_E * (send[h, here] + receive[h, here] + edge[SELF, h])
  g = slope(raw)

  def highest(chunk, top):
    there, exists = block_places(slots, block, chunk, largest.shape[1])
    return jnp.maximum(top, jnp.where(exists, largest[h, there], LOWEST).max(1))

  top = jax.lax.fori_loop(0, chunks[block], highest, g * raw)

  def add(chunk, sums):
    there, exists = block_places(slots, block, chunk, largest.shape[1])
    scale = jnp.where(exists, jnp.exp2(largest[h, there] - top[:, None]), 0.0)
    scaled = [as_wide_as(scale, values) * values for values in (part[h, there] for part in parts)]
    return tuple(old + new.sum(1) for old, new in zip(sums, scaled, strict=True))

  p, values = jnp.exp2(g * raw - top), x[h, here]
  start = [part for q in (p, g * p)[: len(parts) // 2] for part in (q, q[:, None] * values)]
  total, *sums = jax.lax.fori_loop(0, chunks[block], add, tuple(start))
  means = [part / as_wide_as(total, part) for part in sums]
  write_block(h, block, outputs, (top + jnp.log2(total), *means))
