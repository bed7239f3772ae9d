"""Softmax attention over grids of tiles in one GPU kernel, which writes nothing of an edge's size.

The sums are those of `attention.by_edge`, with the same numbers of edges: the senders of a row of
tiles are gone through tile by tile, and sums so far are scaled down where a larger logit comes
(Milakov & Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135). The backward pass
computes every weight again from the largest logit. With raw logits u = s + t + a f, weights p and
slopes g = LeakyReLU'(u), and cotangents Z of the total and Y of the message of a receiver:

  du_srh = p_srh g_srh (Z_rh + Y_rh . x_sh)
  ds_sh = sum_r du_srh       dx_sh = sum_r p_srh Y_rh       da_h = sum_sr du_srh f_sr
  dt_rh = Z_rh (sum_s p_srh g_srh) + Y_rh . (sum_s p_srh g_srh x_sh)

The first three are sums over a column of tiles. The sums in the last are over a row, as the message
is, and are taken in the forward pass.
"""

import functools
import math

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
import jax.numpy as jnp

from gatprune_jax.agent.attention import SLOPE, Partial
from gatprune_jax.agent.tiles import SIDE, Tiles

_LEAST = 16  # features in a matrix unit's product
_LOWEST = float(jnp.finfo(jnp.float32).min)
_LOG2_E = math.log2(math.e)  # powers of two are what the hardware has


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def by_tiles(
  sent: jax.Array,
  received: jax.Array,
  x: jax.Array,
  weight: jax.Array,
  tiles: Tiles,
  interpret: bool,
) -> Partial:
  """The sums of every row of tiles, `R = SIDE` in each of I rows.

  Args:
    sent: s, `[J, SIDE, H]`; -inf for a sender that does not exist.
    received: t, `[I, SIDE, H]`.
    x: `[J, SIDE, H, D]`.
    weight: a, `[H]`.
    tiles: the edges. Not differentiated: the gradient by norms is left out.
    interpret: whether the kernel runs in XLA, operation by operation, as it can on any processor.
  """
  return Partial(*_by_rows(sent, received, x, weight, tiles, interpret, with_slopes=False))


def _forward(sent, received, x, weight, tiles, interpret):
  largest, total, message, *slopes = _by_rows(
    sent, received, x, weight, tiles, interpret, with_slopes=True
  )
  residuals = sent, received, x, weight, tiles, largest, *slopes
  return Partial(largest, total, message), residuals


def _backward(interpret, residuals, cotangents):
  sent, received, x, weight, tiles, largest, slope_total, slope_message = residuals
  _, d_total, d_message = cotangents  # softmax is invariant to the largest logit
  d_received = d_total * slope_total + (d_message * slope_message).sum(-1)
  d_sent, d_x, d_weight = _by_columns(
    sent, received, x, weight, tiles, largest, d_total, d_message, interpret
  )
  return d_sent, d_received, d_x, d_weight.sum(0), None


by_tiles.defvjp(_forward, _backward)


def _by_rows(sent, received, x, weight, tiles, interpret, with_slopes):
  features = x.shape[-1]
  x = _widened(x)
  messages = (*received.shape, x.shape[-1])
  shapes = [received.shape, received.shape, messages]
  shapes += [received.shape, messages] if with_slopes else []
  inputs = [tiles.rows, tiles.norms, weight, sent, received, x]
  sums = _call(_row_kernel, inputs, shapes, received, interpret)
  return [s[..., :features] if s.ndim == 4 else s for s in sums]


def _by_columns(sent, received, x, weight, tiles, largest, d_total, d_message, interpret):
  features = x.shape[-1]
  x, d_message = _widened(x), _widened(d_message)
  inputs = [tiles.columns, tiles.norms, weight, sent, received, x, largest, d_total, d_message]
  shapes = [sent.shape, x.shape, (len(sent), len(weight))]
  d_sent, d_x, d_weight = _call(_column_kernel, inputs, shapes, sent, interpret)
  return d_sent, d_x[..., :features], d_weight


def _row_kernel(rows, norms, weight, sent, received, x, *refs):
  """One head of one row: sums over its tiles in turn; logits are those of powers of two."""
  h, row = pl.program_id(0), pl.program_id(1)
  first, number, first_tile, step = (rows[row, i] for i in range(4))
  t, a = _LOG2_E * received[row, :, h][:, None], _LOG2_E * weight[h]

  def tile(index, carry):
    largest, *sums = carry
    raw = t + _LOG2_E * sent[first + index, :, h][None] + a * norms[first_tile + index * step]
    slope = _slope(raw)
    logits = slope * raw
    new = jnp.maximum(largest, logits.max(1))
    scale, p = jnp.exp2(largest - new), jnp.exp2(logits - new[:, None])
    values = x[first + index, :, h]
    kinds = (p, slope * p)[: len(sums) // 2]
    added = [part for q in kinds for part in (q.sum(1), jnp.dot(q, values))]
    scaled = [s * (scale if s.ndim == 1 else scale[:, None]) for s in sums]
    return (new, *(s + a for s, a in zip(scaled, added, strict=True)))

  pair = (jnp.zeros(SIDE, x.dtype), jnp.zeros((SIDE, x.shape[-1]), x.dtype))
  start = (jnp.full(SIDE, _LOWEST, x.dtype), *(len(refs) // 2 * pair))
  largest, *sums = jax.lax.fori_loop(0, number, tile, start)
  for ref, value in zip(refs, (largest / _LOG2_E, *sums), strict=True):
    ref[row, :, h] = value


def _column_kernel(
  columns, norms, weight, sent, received, x, largest, d_total, d_message, d_sent, d_x, d_weight
):
  """One head of one column: gradients summed over its tiles in turn, senders first."""
  h, column = pl.program_id(0), pl.program_id(1)
  first, number, first_tile, step = (columns[column, i] for i in range(4))
  s, a = _LOG2_E * sent[column, :, h][:, None], _LOG2_E * weight[h]
  values = x[column, :, h]

  def tile(index, carry):
    d_s, d_values, d_a = carry
    row, f = first + index, norms[first_tile + index * step].T
    raw = s + _LOG2_E * received[row, :, h][None] + a * f
    slope = _slope(raw)
    p = jnp.exp2(slope * raw - _LOG2_E * largest[row, :, h][None])
    y = d_message[row, :, h]
    d_raw = slope * p * (d_total[row, :, h][None] + jnp.dot(values, y.T))
    return d_s + d_raw.sum(1), d_values + jnp.dot(p, y), d_a + (d_raw * f).sum()

  start = tuple(jnp.zeros(shape, x.dtype) for shape in (SIDE, values.shape, ()))
  d_s, d_values, d_a = jax.lax.fori_loop(0, number, tile, start)
  d_sent[column, :, h], d_x[column, :, h], d_weight[column, h] = d_s, d_values, d_a


def _slope(raw: jax.Array) -> jax.Array:
  """LeakyReLU'(raw), which is LeakyReLU(raw) / raw."""
  return jnp.where(raw < 0, SLOPE, 1.0)


def _widened(x: jax.Array) -> jax.Array:
  """With features that are a power of two, as a kernel's arrays must be, and enough of them."""
  features = x.shape[-1]
  width = max(_LEAST, 1 << (features - 1).bit_length())
  return jnp.pad(x, [*(x.ndim - 1) * [(0, 0)], (0, width - features)])


def _call(kernel, inputs, shapes, ends, interpret: bool):
  """The kernel for each row or column and each head of their `ends`, `[..., SIDE, H]`.

  It has whole arrays, of which a program reads and writes its own parts.
  """
  return pl.pallas_call(
    kernel,
    out_shape=[jax.ShapeDtypeStruct(shape, ends.dtype) for shape in shapes],
    grid=(ends.shape[2], ends.shape[0]),  # a tile's heads side by side: they share its norms
    interpret=interpret,
    compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
  )(*inputs)
