"""Graph attention on tiles: four kernels and their gradient by hand, nothing of an edge's size.

With raw logits u = s + t + c + a f, l = LeakyReLU(u), g = LeakyReLU'(u) and weights p = softmax(l)
over the edges of a receiver:

  y_r = sum_s p_sr x_s

With the cotangent Y of y, and Y_r . y_r for what the softmax takes away:

  du_sr = p_sr g_sr (Y_r . x_s - Y_r . y_r)
  ds_s = sum_r du_sr       dx_s = sum_r p_sr Y_r       da = sum_sr du_sr f_sr
  dt_r = Y_r . (sum_s p_sr g_sr x_s) - (Y_r . y_r) (sum_s p_sr g_sr)

The first three are sums over a column of tiles, where weights are computed again from the sum of
exponentials. The sums in the last are over a row, as y is, and are taken in the forward pass.
"""

import jax
import jax.numpy as jnp

from gatprune_jax.agent.blocks import flags
from gatprune_jax.agent.tile_kernels import (
  LOG2_E,
  SELF,
  add_columns,
  merge_rows,
  slope,
  sum_columns,
  sum_rows,
)
from gatprune_jax.agent.tiles import Tiles

_LEAST = 16  # features in a matrix unit's product
_OWN = flags(self=True)


@jax.custom_vjp
def attend_tiles(
  send: jax.Array, receive: jax.Array, x: jax.Array, edge: jax.Array, tiles: Tiles
) -> jax.Array:
  """The means y over the edges of each node, with one from each node to itself.

  Args:
    send: s, `[H, n]`.
    receive: t, `[H, n]`.
    x: `[H, n, D]`.
    edge: what a feature of an edge adds to the logit, `[E, H]`: a, then that of each flag.
    tiles: the edges. Not differentiated: the gradient by norms is left out.

  Returns:
    `[H, n, D]`.
  """
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
  own = send + receive + edge[SELF][:, None]
  p = jnp.exp2(LOG2_E * slope(own) * own - log_total[:, :num])
  d_own = p * slope(own) * ((d_mean * x).sum(-1) - offset)
  shared = tiles.senders.flags @ edge[1:]
  *columns, d_weight = sum_columns(send, receive, x, edge, shared, log_total, d_mean, offset, tiles)
  d_send, d_x = add_columns([d_own, p[..., None] * d_mean], columns, tiles.senders)
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
