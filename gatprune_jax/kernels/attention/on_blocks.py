"""Graph attention on blocks, slice by slice, with a hand-written gradient.

The features of a slice's nodes are gathered just before the slice is evaluated, and the results are
added to the nodes at once. Gathered features and computed arrays with one entry for each edge
therefore exist for one slice at a time. The gradient computes the softmax weights of each slice
again. The equations and symbols are those in the docstring of the module `softmax`.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp

from gatprune_jax.kernels.attention.blocks import Block, sorts
from gatprune_jax.kernels.attention.edges import SELF
from gatprune_jax.kernels.attention.softmax import (
  Receivers,
  by_edge,
  by_edge_gradient,
  by_sorting,
  by_sorting_gradient,
  gradient_by_own_edges,
  own_logits,
)


@jax.custom_vjp
def attend_blocks(
  send: jax.Array, receive: jax.Array, x: jax.Array, edge: jax.Array, blocks: Sequence[Block]
) -> jax.Array:
  """Computes the means y over the edges of each node, one edge from the node to itself included.

  Args:
    send: s, `[H, n]`.
    receive: t, `[H, n]`.
    x: the values to average, `[H, n, D]`.
    edge: the weight of each edge feature in the logit, `[E, H]`: a, the weight of the norms, then
      the weight of each flag.
    blocks: the edges. They are not differentiated, so there is no gradient of the norms.

  Returns:
    The means, `[H, n, D]`.
  """
  return _attend(send, receive, x, edge, blocks)[0]


def _attend(send, receive, x, edge, blocks):
  """Computes the means `[H, n, D]` and L, the logarithm of the sum of exponentials, `[H, n]`."""
  own = own_logits(send, receive, edge[SELF])
  sums = (own, jnp.ones_like(own), x)
  for block in blocks:
    ends = _scores(send, receive, edge, block)
    sums = _over_slices(functools.partial(_add_sums, x, edge), sums, (block, *ends))
  largest, total, message = sums
  return message / total[..., None], largest + jnp.log(total)


def _forward(send, receive, x, edge, blocks):
  mean, log_total = _attend(send, receive, x, edge, blocks)
  return mean, (send, receive, x, edge, blocks, mean, log_total)


def _backward(residuals, d_mean):
  send, receive, x, edge, blocks, mean, log_total = residuals
  offset = (d_mean * mean).sum(-1)
  own = own_logits(send, receive, edge[SELF])
  d_own, d_x = gradient_by_own_edges(own, x, Receivers(log_total, d_mean, offset))
  d_edge = jnp.zeros_like(edge).at[SELF].set(d_own.sum(-1))
  gradients = (d_own, d_own, d_x, d_edge)
  for block in blocks:
    ends = _scores(send, receive, edge, block)
    known = _take(log_total, block.receivers, jnp.inf), _take(offset, block.receivers, 0.0)
    add = functools.partial(_add_gradients, x, edge, d_mean)
    gradients = _over_slices(add, gradients, (block, *ends, *known))
  return *gradients, None


attend_blocks.defvjp(_forward, _backward)


def _add_sums(x, edge, sums, slice_):
  """Adds one slice's sums to the largest logits, totals `[H, n]` and messages `[H, n, D]` so far.

  Where the slice has a larger logit, the sums so far are scaled down, as in `row_kernels.sum_rows`.
  """
  block, sent, received = slice_
  largest, total, message = sums
  ends = sent, received, _take(x, block.senders, 0.0)
  part = by_sorting(*ends) if _sorts(block) else by_edge(*ends, edge[0], block.norms)
  receivers = block.receivers
  new = largest.at[:, receivers].max(_heads_first(part.largest), mode="drop")
  old_scale = jnp.exp(largest - new)
  scale = jnp.exp(part.largest - _take(new, receivers, jnp.inf))
  more = (scale[..., None, :] * part.message).swapaxes(-1, -2)
  return (
    new,
    _add(old_scale * total, receivers, scale * part.total),
    _add(old_scale[..., None] * message, receivers, more),
  )


def _add_gradients(x, edge, d_mean, gradients, slice_):
  """Adds one slice's gradients to the gradients with respect to s, t, x and edge so far."""
  block, sent, received, log_total, offset = slice_
  ends = sent, received, _take(x, block.senders, 0.0)
  receivers = Receivers(log_total, _take(d_mean, block.receivers, 0.0), offset)
  if _sorts(block):
    found = *by_sorting_gradient(*ends, receivers), jnp.zeros_like(edge[0])
  else:
    found = by_edge_gradient(*ends, edge[0], block.norms, receivers)
  d_sent, d_received, d_x, d_weight = found
  d_flags = block.flags.T @ d_received.sum(-1)
  d_send, d_receive, d_all_x, d_edge = gradients
  return (
    _add(d_send, block.senders, d_sent),
    _add(d_receive, block.receivers, d_received),
    _add(d_all_x, block.senders, d_x),
    d_edge + jnp.concatenate([d_weight[None], d_flags]),
  )


def _over_slices(fn: Callable[[Any, Any], Any], carry: Any, slices: Any) -> Any:
  """Computes `carry = fn(carry, slice)` for each slice along the leading axis of `slices`."""
  if len(jax.tree.leaves(slices)[0]) == 1:
    return fn(carry, jax.tree.map(lambda a: a[0], slices))
  return jax.lax.scan(lambda carry, one: (fn(carry, one), ()), carry, slices)[0]


def _scores(send, receive, edge, block: Block) -> tuple[jax.Array, jax.Array]:
  """Gathers s of a block's senders `[M, K, H, S]` and t of its receivers `[M, K, H, R]`.

  The terms of the flags are included in t. Scores are gathered for all slices together, because
  within the evaluation of a slice XLA would gather them again for every edge.
  """
  shared = jnp.asarray(block.flags) @ edge[1:]
  received = _take(receive, block.receivers, 0.0) + shared[..., None]
  return _take(send, block.senders, -jnp.inf), received


def _sorts(block: Block) -> bool:
  return sorts(block.senders.shape[-1], block.receivers.shape[-1], block.norms is not None)


def _take(values: jax.Array, ids: jax.Array, fill: float) -> jax.Array:
  """Takes values `[H, n, ...]` at ids `[..., S]`: `[..., H, S, ...]`, `fill` at ids of padding."""
  taken = values.at[:, ids].get(mode="fill", fill_value=fill)
  return jnp.moveaxis(taken, 0, ids.ndim - 1)


def _add(values: jax.Array, ids: jax.Array, more: jax.Array) -> jax.Array:
  """Adds `more` `[K, H, S, ...]` at ids `[K, S]` to `values` `[H, n, ...]`; ignores padding."""
  return values.at[:, ids].add(_heads_first(more), mode="drop")


def _heads_first(values: jax.Array) -> jax.Array:  # [K, H, ...]
  return values.swapaxes(0, 1)
