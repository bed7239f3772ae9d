"""Softmax attention over complete bipartite sets of edges, in two forms, with their gradients.

Each sender s has a score s_s, and each receiver r a score t_r, which includes the terms that all
edges of the set share. Edges may also have norms f, whose weight in the logit is a:

  u_sr = s_s + t_r + a f_sr,  l_sr = LeakyReLU(u_sr)

A set may hold only some of a receiver's edges, so both forms return sums relative to the largest
logit of the set, and the caller combines the sums of all sets. The gradient is computed after all
sets are summed. With L the logarithm of the sum of exp(l) over all edges of a receiver, y the mean
of x with weights p = exp(l - L), and Y the cotangent of y,

  du_sr = p_sr LeakyReLU'(u_sr) (Y_r . x_s - Y_r . y_r)
  ds_s = sum_r du_sr    dt_r = sum_s du_sr    dx_s = sum_r p_sr Y_r    da = sum_sr du_sr f_sr

Arrays have an axis of K sets and an axis of H heads before all other axes: `[K, H, S]`. The
combined results do not depend on which largest logits the sums are relative to, so no gradient is
computed through the largest logits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

SLOPE = 0.01  # slope of LeakyReLU below zero


class Sums(NamedTuple):
  """Softmax-weighted sums over the edges of one set for each receiver, not yet normalised."""

  largest: jax.Array  # [..., R] m, the largest logit; very low for a receiver without edges
  total: jax.Array  # [..., R] sum of exp(l - m)
  # [..., D, R] sum of exp(l - m) x_s. The matrix product leaves the receivers as the last axis.
  message: jax.Array


class Receivers(NamedTuple):
  """The values of each receiver, over all sets, from which the gradient of one set is computed."""

  log_total: jax.Array  # [..., R] L; infinite for a receiver that does not exist
  d_mean: jax.Array  # [..., R, D] Y
  offset: jax.Array  # [..., R] Y . y


def slope(logits: jax.Array) -> jax.Array:
  """LeakyReLU'(u), given either u or LeakyReLU(u), which have the same sign."""
  return jnp.where(logits < 0, SLOPE, 1.0)


def by_edge(
  sent: jax.Array, received: jax.Array, x: jax.Array, weight: jax.Array, norms: jax.Array | None
) -> Sums:
  """Computes the sums of a set from all its logits and a matrix product, in time O(S R D).

  Args:
    sent: s, `[K, H, S]`; -inf for a sender that does not exist.
    received: t, `[K, H, R]`.
    x: `[K, H, S, D]`.
    weight: a, `[H]`.
    norms: f, `[K, S, R]`; None means that all norms are zero.
  """
  logits = _logits(sent, received, weight, norms)
  largest = _finite(logits.max(-2))
  weights = jnp.exp(logits - largest[..., None, :])
  # On CPU, XLA computes the matrix product fast in this order of axes.
  message = jnp.einsum("...ds,...sr->...dr", x.swapaxes(-1, -2), weights)
  return Sums(largest, weights.sum(-2), message)


def by_edge_gradient(
  sent: jax.Array,
  received: jax.Array,
  x: jax.Array,
  weight: jax.Array,
  norms: jax.Array | None,
  receivers: Receivers,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Computes the gradients of one set edge by edge.

  Args:
    sent: s, `[K, H, S]`, as in `by_edge`.
    received: t, `[K, H, R]`.
    x: `[K, H, S, D]`.
    weight: a, `[H]`.
    norms: f, `[K, S, R]`; None means that all norms are zero.
    receivers: L and Y . y `[K, H, R]` and Y `[K, H, R, D]` of the set's receivers.

  Returns:
    ds `[K, H, S]`, dt `[K, H, R]`, dx `[K, H, S, D]` and da `[H]`.
  """
  log_total, d_mean, offset = receivers
  logits = _logits(sent, received, weight, norms)
  weights = jnp.exp(logits - log_total[..., None, :])
  pull = jnp.einsum("...sd,...rd->...sr", x, d_mean) - offset[..., None, :]
  d_logits = weights * slope(logits) * pull
  d_x = jnp.einsum("...sr,...rd->...sd", weights, d_mean)
  d_weight = jnp.zeros_like(weight)
  if norms is not None:
    by_set = d_logits.reshape(*d_logits.shape[:2], -1)
    d_weight = jnp.einsum("khe,ke->kh", by_set, norms.reshape(len(norms), -1)).sum(0)
  return d_logits.sum(-1), d_logits.sum(-2), d_x, d_weight


def by_sorting(sent: jax.Array, received: jax.Array, x: jax.Array) -> Sums:
  """Computes the sums of a set without norms, exactly, in time O((S + R) (log S + D)).

  LeakyReLU is linear on either side of zero, so on either side exp(LeakyReLU(s + t)) is the product
  of a factor of s and a factor of t. With senders in ascending order of s, the senders with
  s + t >= 0 are a suffix, whose sum is read from cumulative sums. With m the largest s,

    l_r = LeakyReLU(m + t_r)
    sum_s exp(l_sr - l_r) x_s =
      sum_{s + t_r >= 0} exp(s - m) x_s
      + exp(-(1 - SLOPE) max(m + t_r, 0)) sum_{s + t_r < 0} exp(SLOPE (s - m)) x_s

  No exponent is positive, so that nothing overflows, and no sum is computed as the difference of
  two sums, so that no digits cancel.

  Args:
    sent: s, `[K, H, S]`; -inf for a sender that does not exist.
    received: t, `[K, H, R]`.
    x: `[K, H, S, D]`.
  """
  return jax.vmap(jax.vmap(_sorted_head))(sent, received, x)


def by_sorting_gradient(
  sent: jax.Array, received: jax.Array, x: jax.Array, receivers: Receivers
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Computes the gradients of one set without norms by differentiating `by_sorting`.

  Args:
    sent: s, `[K, H, S]`, as in `by_sorting`.
    received: t, `[K, H, R]`.
    x: `[K, H, S, D]`.
    receivers: L and Y . y `[K, H, R]` and Y `[K, H, R, D]` of the set's receivers.

  Returns:
    ds `[K, H, S]`, dt `[K, H, R]` and dx `[K, H, S, D]`.
  """

  def shares(*ends):
    largest, total, message = by_sorting(*ends)
    scale = jnp.exp(largest - receivers.log_total)
    return scale * total, scale[..., None, :] * message

  _, pull = jax.vjp(shares, sent, received, x)
  return pull((-receivers.offset, receivers.d_mean.swapaxes(-1, -2)))


def gradient_by_own_edges(
  logits: jax.Array, x: jax.Array, receivers: Receivers
) -> tuple[jax.Array, jax.Array]:
  """Computes du `[H, n]` and dx `[H, n, D]` of the edges from each node to itself.

  Args:
    logits: l of these edges, `[H, n]`.
    x: `[H, n, D]`.
    receivers: L and Y . y `[H, n]` and Y `[H, n, D]` of all nodes.
  """
  log_total, d_mean, offset = receivers
  weights = jnp.exp(logits - log_total)
  pull = (d_mean * x).sum(-1) - offset
  return weights * slope(logits) * pull, weights[..., None] * d_mean


def own_logits(send: jax.Array, receive: jax.Array, own: jax.Array) -> jax.Array:
  """Computes the logits l of the edges from each node to itself, `[H, n]`.

  Args:
    send: s, `[H, n]`.
    receive: t, `[H, n]`.
    own: the term that the flag "self" adds to the logits, `[H]`.
  """
  return jax.nn.leaky_relu(send + receive + own[:, None], SLOPE)


def _logits(sent, received, weight, norms):
  raw = sent[..., :, None] + received[..., None, :]
  if norms is not None:
    raw = raw + weight[None, :, None, None] * norms[:, None]
  return jax.nn.leaky_relu(raw, SLOPE)


def _sorted_head(sent, received, x):  # [S], [R], [S, D]
  order = jnp.argsort(jax.lax.stop_gradient(sent))
  sent, x = sent[order], x[order]
  largest = _finite(jax.lax.stop_gradient(sent[-1]))
  first = jnp.searchsorted(jax.lax.stop_gradient(sent), -jax.lax.stop_gradient(received))  # [R]
  values = jnp.concatenate([jnp.ones_like(sent)[:, None], x], axis=1)
  steep = jnp.exp(sent - largest)[:, None] * values
  flat = jnp.exp(SLOPE * (sent - largest))[:, None] * values
  nothing = jnp.zeros_like(values[:1])
  suffixes = jnp.concatenate([jnp.cumsum(steep[::-1], 0)[::-1], nothing])
  prefixes = jnp.concatenate([nothing, jnp.cumsum(flat, 0)])
  reference = jax.nn.leaky_relu(largest + received, SLOPE)
  shrink = jnp.exp(SLOPE * (largest + received) - reference)
  sums = suffixes[first] + shrink[:, None] * prefixes[first]
  return Sums(reference, sums[:, 0], sums[:, 1:].T)


def _finite(largest: jax.Array) -> jax.Array:
  """Replaces minus infinity, the maximum over no edges, by the lowest finite number."""
  return jnp.maximum(largest, jnp.finfo(largest.dtype).min)
