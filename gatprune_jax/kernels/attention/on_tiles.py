"""Graph attention on tiles: four kernels and their gradient by hand, nothing of an edge's size.

The equations are in `attention`. With g = LeakyReLU'(u), the gradient by t is also

  dt_r = Y_r . (sum_s p_sr g_sr x_s) - (Y_r . y_r) (sum_s p_sr g_sr)

These sums are over a row of tiles, as y is, and are taken in the forward pass. The other gradients
are sums over a column, where weights are computed again from L.
"""

import jax
import jax.numpy as jnp

from gatprune_jax.kernels.attention.column_kernels import add_columns, sum_columns
from gatprune_jax.kernels.attention.edges import SELF, flags
from gatprune_jax.kernels.attention.row_kernels import merge_rows, sum_rows
from gatprune_jax.kernels.attention.softmax import Receivers, gradient_by_own_edges, own_logits
from gatprune_jax.kernels.attention.tile_programs import LOG2_E
from gatprune_jax.kernels.attention.tiles import Tiles

_LEAST = 16  # features in a matrix unit's product
_OWN = flags(self=True)


@jax.custom_vjp
def attend_tiles(
  send: jax.Array, receive: jax.Array, x: jax.Array, edge: jax.Array, tiles: Tiles
) -> jax.Array:
  """`on_blocks.attend_blocks`, the means y `[H, n, D]`, with tiles for blocks."""
  _, mean = _attend(send, receive, _widened(x), edge, tiles, sloped=False)
  return _cut(mean, x)


def _forward(send, receive, x, edge, tiles):
  wide = _widened(x)
  means = _attend(send, receive, wide, edge, tiles, sloped=True)
  return _cut(means[1], x), (send, receive, wide, edge, tiles, *means)


def _backward(residuals, cotangent):
  send, receive, x, edge, tiles, log_total, mean, sloped_total, sloped_mean = residuals
  num, d_mean = send.shape[1], _widened(cotangent)
  offset = (d_mean * mean[:, :num]).sum(-1)
  d_receive = (d_mean * sloped_mean[:, :num]).sum(-1) - offset * sloped_total[:, :num]
  receivers = Receivers(log_total[:, :num] / LOG2_E, d_mean, offset)
  d_own, d_own_x = gradient_by_own_edges(own_logits(send, receive, edge[SELF]), x, receivers)
  shared = tiles.senders.flags @ edge[1:]
  *columns, d_weight = sum_columns(send, receive, x, edge, shared, log_total, d_mean, offset, tiles)
  d_send, d_x = add_columns([d_own, d_own_x], columns, tiles.senders)
  d_flags = tiles.senders.flags.T @ columns[0].sum(-1).T + _OWN[:, None] * d_own.sum(-1)[None]
  d_edge = jnp.concatenate([d_weight.sum(-1)[None], d_flags])
  return d_send[:, :num], d_receive, _cut(d_x, cotangent), d_edge, None


attend_tiles.defvjp(_forward, _backward)


def _attend(send, receive, x, edge, tiles, sloped):
  shared = tiles.receivers.flags @ edge[1:]
  rows = sum_rows(send, receive, x, edge, shared, tiles, sloped)
  return merge_rows(send, receive, x, edge, rows, tiles.receivers)


def _widened(x: jax.Array) -> jax.Array:
  """With features that are a power of two, as a kernel's arrays must be, and enough of them."""
  features = x.shape[-1]
  width = max(_LEAST, 1 << (features - 1).bit_length())
  return jnp.pad(x, [*(x.ndim - 1) * [(0, 0)], (0, width - features)])


def _cut(wide: jax.Array, x: jax.Array) -> jax.Array:
  """As many nodes and features as x has, `[H, n, D]`."""
  return wide[:, : x.shape[1], : x.shape[2]]
