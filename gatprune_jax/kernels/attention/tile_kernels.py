"""The GPU kernels of attention on tiles, in Pallas for Triton.

Arrays have heads first. A program has whole arrays, and reads and writes the parts of one head that
are its own. Logits are in units of ln 2, since powers of two are what the hardware has.

JAX deprecates this backend of Pallas from version 0.11 on; the versions that setup.py admits have
it. To admit one that has not, make the import conditional and `run_here` say no: attention is on
blocks then.
"""

from collections.abc import Callable, Sequence
import math

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
import jax.numpy as jnp

from gatprune_jax.kernels.attention.edges import SELF
from gatprune_jax.kernels.attention.softmax import slope
from gatprune_jax.kernels.attention.tiles import NODES_AT_ONCE, PLACES_AT_ONCE, SIDE, Ends, Tiles

LOG2_E = math.log2(math.e)
_LOWEST = float(jnp.finfo(jnp.float32).min)


def run_here() -> bool:
  """Whether the kernels compile here: for NVIDIA's GPUs of compute capability 8 and above."""
  device = jax.local_devices()[0]
  version = str(getattr(device, "compute_capability", ""))
  return device.platform == "gpu" and version.replace(".", "").isdigit() and float(version) >= 8.0


def sum_rows(
  send: jax.Array,
  receive: jax.Array,
  x: jax.Array,
  edge: jax.Array,
  shared: jax.Array,
  tiles: Tiles,
  sloped: bool,
) -> list[jax.Array]:
  """Sums over each row's edges, relative to the largest logit among them.

  Senders are gone through tile by tile, and sums so far are scaled down where a larger logit comes
  (Milakov & Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135).

  Args:
    send: s, `[H, n]`.
    receive: t, `[H, n]`.
    x: `[H, n, D]`, D a power of two from 16 on.
    edge: what features of an edge add to logits, `[E, H]`; a is that of norms, the first.
    shared: c, what a row's edges add to logits, `[I, H]`.
    tiles: the edges.
    sloped: whether the last two sums are needed.

  Returns:
    With u = s + t + c + a f, logits l = LeakyReLU(u), g = LeakyReLU'(u) and p = exp(l - largest):
    the largest l, and the sums of p, p x, p g and p g x, in places, `[H, I, SIDE]` or
    `[H, I, SIDE, D]`.
  """
  pair = _pair(x, (len(tiles.receivers.ids), SIDE))
  return _call(
    _row_kernel,
    [*tiles.receivers[:2], tiles.senders.ids, tiles.norms, edge, shared, send, receive, x],
    [pair[0], *pair, *(pair if sloped else [])],
    pair[0][:2],
  )


def _row_kernel(receivers, lines, senders, norms, edge, shared, send, receive, x, *outputs):
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
    return (new, *(_like(scale, old) * old + add for old, add in zip(sums, added, strict=True)))

  pair = [jnp.zeros(shape, x.dtype) for shape in (SIDE, (SIDE, x.shape[-1]))]
  start = (jnp.full(SIDE, _LOWEST, x.dtype), *(len(outputs) // 2 * pair))
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
  """Means over all edges of each node, with one from each node to itself.

  Args:
    send: s, `[H, n]`.
    receive: t, `[H, n]`.
    x: `[H, n, D]`.
    edge: what features of an edge add to logits, `[E, H]`.
    rows: what `sum_rows` returns.
    receivers: the rows' places.

  Returns:
    The logarithm of the sum of exp(l), in units of ln 2, and with weights p of sum one those sums
    of p x, p g and p g x that rows have; `[H, N]` or `[H, N, D]` for N >= n nodes, filled up.
  """
  pair = _pair(x, (len(receivers.slots),))
  return _call(
    _merge_kernel,
    [receivers.slots, receivers.chunks, send, receive, x, edge, *_flat(rows)],
    [*pair, *(pair if len(rows) == 5 else [])],
    (len(x), len(receivers.chunks)),
  )


def _merge_kernel(slots, chunks, send, receive, x, edge, largest, *refs):
  h, block = pl.program_id(0), pl.program_id(1)
  parts, outputs = refs[: len(refs) // 2], refs[len(refs) // 2 :]
  here = _nodes(block, x.shape[1])
  raw = LOG2_E * (send[h, here] + receive[h, here] + edge[SELF, h])
  g = slope(raw)

  def highest(chunk, top):
    there, exists = _places(slots, block, chunk, largest.shape[1])
    return jnp.maximum(top, jnp.where(exists, largest[h, there], _LOWEST).max(1))

  top = jax.lax.fori_loop(0, chunks[block], highest, g * raw)

  def add(chunk, sums):
    there, exists = _places(slots, block, chunk, largest.shape[1])
    scale = jnp.where(exists, jnp.exp2(largest[h, there] - top[:, None]), 0.0)
    scaled = [_like(scale, values) * values for values in (part[h, there] for part in parts)]
    return tuple(old + new.sum(1) for old, new in zip(sums, scaled, strict=True))

  p, values = jnp.exp2(g * raw - top), x[h, here]
  start = [part for q in (p, g * p)[: len(parts) // 2] for part in (q, q[:, None] * values)]
  total, *sums = jax.lax.fori_loop(0, chunks[block], add, tuple(start))
  means = [part / _like(total, part) for part in sums]
  _write(h, block, outputs, (top + jnp.log2(total), *means))


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
  """Gradients summed over each column's edges.

  Args:
    send: s, `[H, n]`.
    receive: t, `[H, n]`.
    x: `[H, n, D]`.
    edge: what features of an edge add to logits, `[E, H]`; a is that of norms, the first.
    shared: c, what a column's edges add to logits, `[J, H]`.
    log_total: of `merge_rows`, `[H, n]` at least.
    d_mean: Y, the cotangent of means, `[H, n, D]`.
    offset: Y . mean, `[H, n]`.
    tiles: the edges.

  Returns:
    With p of sum one over a receiver's edges, and du = p g (Y . x - offset): the sums of du and p Y
    in places, `[H, J, SIDE]` and `[H, J, SIDE, D]`, and of du f, `[H, J]`.
  """
  pair = _pair(x, (len(tiles.senders.ids), SIDE))
  ends = [*tiles.senders[:2], tiles.receivers.ids, tiles.transposed]
  inputs = [*ends, edge, shared, send, receive, x, log_total, d_mean, offset]
  return _call(_column_kernel, inputs, [*pair, pair[0][:2]], pair[0][:2])


def _column_kernel(
  senders, lines, receivers, norms, edge, shared, send, receive, x, log_total, d_mean, offset,
  d_send, d_x, d_weight,
):  # fmt: skip
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
  """The sums over each node's places in columns, added to its own values.

  Args:
    own: `[H, n]` and `[H, n, D]`.
    columns: the same in places, `[H, J, SIDE]` and `[H, J, SIDE, D]`.
    senders: the columns' places.

  Returns:
    `[H, N]` and `[H, N, D]`, for N >= n nodes, filled up.
  """
  return _call(
    _add_kernel,
    [senders.slots, senders.chunks, *own, *_flat(columns)],
    _pair(own[1], (len(senders.slots),)),
    (len(own[0]), len(senders.chunks)),
  )


def _add_kernel(slots, chunks, own, own_x, part, part_x, output, output_x):
  h, block = pl.program_id(0), pl.program_id(1)
  here = _nodes(block, own.shape[1])

  def add(chunk, sums):
    there, exists = _places(slots, block, chunk, part.shape[1])
    more = jnp.where(exists, part[h, there], 0.0), part_x[h, there]
    more = more[0], jnp.where(exists[..., None], more[1], 0.0)
    return tuple(old + new.sum(1) for old, new in zip(sums, more, strict=True))

  sums = jax.lax.fori_loop(0, chunks[block], add, (own[h, here], own_x[h, here]))
  _write(h, block, (output, output_x), sums)


def _nodes(block: jax.Array, num_nodes: int) -> jax.Array:
  """The nodes of a block; beyond the last one, that again."""
  return jnp.minimum(block * NODES_AT_ONCE + jnp.arange(NODES_AT_ONCE), num_nodes - 1)


def _places(slots, block: jax.Array, chunk: jax.Array, number: int) -> tuple[jax.Array, jax.Array]:
  """Some places of a block's nodes, `[NODES_AT_ONCE, PLACES_AT_ONCE]`, and which there are."""
  nodes = pl.ds(block * NODES_AT_ONCE, NODES_AT_ONCE)
  places = slots[nodes, pl.ds(chunk * PLACES_AT_ONCE, PLACES_AT_ONCE)]
  return jnp.minimum(places, number - 1), places < number


def _write(h: jax.Array, block: jax.Array, outputs: Sequence, values: Sequence[jax.Array]) -> None:
  """What a block's nodes get, one value for each output."""
  for output, value in zip(outputs, values, strict=True):
    output[h, pl.ds(block * NODES_AT_ONCE, NODES_AT_ONCE)] = value


def _like(scale: jax.Array, values: jax.Array) -> jax.Array:
  """The scale with as many dimensions as the values have."""
  return scale if scale.ndim == values.ndim else scale[..., None]


def _flat(lines: Sequence[jax.Array]) -> list[jax.Array]:
  """`[H, L, SIDE, ...]` to `[H, L * SIDE, ...]`, the order that slots count in."""
  return [part.reshape(part.shape[0], -1, *part.shape[3:]) for part in lines]


def _pair(x: jax.Array, inner: tuple[int, ...]) -> list[tuple[int, ...]]:
  """Shapes of a number and of D features, `[H, *inner]` and `[H, *inner, D]`."""
  return [(len(x), *inner), (len(x), *inner, x.shape[-1])]


def _call(
  kernel: Callable[..., None],
  inputs: Sequence[jax.Array],
  shapes: Sequence[tuple[int, ...]],
  grid: tuple[int, ...],
) -> list[jax.Array]:
  """The kernel's outputs, by GPU or, without one, by XLA operation by operation.

  Heads are first in the grid, so that programs that read the same norms run side by side.
  """
  return pl.pallas_call(
    kernel,
    out_shape=[jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes],
    grid=grid,
    interpret=not run_here(),
    compiler_params=triton.CompilerParams(num_warps=2, num_stages=2),
  )(*inputs)
