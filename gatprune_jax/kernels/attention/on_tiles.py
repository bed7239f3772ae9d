"""Graph attention on tiles, with four GPU kernels and a hand-written gradient.

No computed array with one entry for each edge is written to memory. The equations and symbols are
those in the docstring of the module `softmax`. With g = LeakyReLU'(u), the gradient with respect to
t is also

  dt_r = Y_r . (sum_s p_sr g_sr x_s) - (Y_r . y_r) (sum_s p_sr g_sr)

Both sums over s run over a row of tiles, as y does, and are computed in the forward pass. The other
gradients are sums over a column of tiles, for which the weights p are computed again from L.
"""

import jax
import jax.numpy as jnp

from gatprune_jax.kernels.attention.column_kernels import add_columns, sum_columns
from gatprune_jax.kernels.attention.edges import SELF, flags
from gatprune_jax.kernels.attention.row_kernels import merge_rows, sum_rows
from gatprune_jax.kernels.attention.softmax import Receivers, gradient_by_own_edges, own_logits
from gatprune_jax.kernels.attention.tile_programs import LOG2_E
from gatprune_jax.kernels.attention.tiles import Tiles

_LEAST = 16  # the fewest features that a GPU's matrix units multiply at once
_OWN = flags(self=True)  # flags of the edge from a node to itself


@jax.custom_vjp
def attend_tiles(
  send: jax.Array, receive: jax.Array, x: jax.Array, edge: jax.Array, tiles: Tiles
) -> jax.Array:
  """Computes the means y over the edges of each node, one edge from the node to itself included.

  The result equals that of `on_blocks.attend_blocks` on the same edges.

  Args:
    send: s, `[H, n]`.
    receive: t, `[H, n]`.
    x: the values to average, `[H, n, D]`.
    edge: the weight of each edge feature in the logit, `[E, H]`: a, the weight of the norms, then
      the weight of each flag.
    tiles: the edges. They are not differentiated.

  Returns:
    The means, `[H, n, D]`.
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
  """Pads the features with zeros to a power of two, as kernels require, and to at least _LEAST."""
  features = x.shape[-1]
  width = max(_LEAST, 1 << (features - 1).bit_length())
  return jnp.pad(x, [*(x.ndim - 1) * [(0, 0)], (0, width - features)])


def _cut(wide: jax.Array, x: jax.Array) -> jax.Array:
  """Cuts a kernel's result to the nodes and features of x, `[H, n, D]`."""
  return wide[:, : x.shape[1], : x.shape[2]]
