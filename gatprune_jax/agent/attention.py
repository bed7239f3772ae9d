"""Softmax attention over one complete bipartite set of edges, in two forms, and their sum.

With scores s of the senders, t of the receivers (what all edges share included), and perhaps a
norm f of each edge, head h:

  logit_srh = LeakyReLU(s_sh + t_rh + a_h f_sr)

A set may hold only some of a receiver's edges, so each form gives sums relative to the largest
logit of the set, which `merge` adds up.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

SLOPE = 0.01  # of LeakyReLU below zero


class Partial(NamedTuple):
  """A softmax-weighted sum over some of each receiver's edges, not yet normalised."""

  largest: jax.Array  # [R, H] l, the largest logit; very low where there are no edges
  total: jax.Array  # [R, H] sum of exp(logit - l)
  message: jax.Array  # [R, H, D] sum of exp(logit - l) x_s


def by_edge(
  sent: jax.Array,
  received: jax.Array,
  x: jax.Array,
  weight: jax.Array,
  norms: jax.Array | None,
) -> Partial:
  """Every logit, then a matrix product: O(S R H D).

  Args:
    sent: s, `[S, H]`; -inf for a sender that does not exist.
    received: t, `[R, H]`.
    x: `[S, H, D]`.
    weight: a, `[H]`.
    norms: f, `[S, R]`, or None for zero.
  """
  logits = sent.T[:, :, None] + received.T[:, None]  # [H, S, R]: matrices for the product
  if norms is not None:
    logits = logits + weight[:, None, None] * norms[None]
  logits = jax.nn.leaky_relu(logits, SLOPE)
  largest = _finite(jax.lax.stop_gradient(logits.max(1)))  # softmax is invariant to it
  weights = jnp.exp(logits - largest[:, None])
  message = jnp.einsum("hsr,shd->rhd", weights, x)
  return Partial(largest.T, weights.sum(1).T, message)


def by_sorting(sent: jax.Array, received: jax.Array, x: jax.Array) -> Partial:
  """The same without norms, exactly, in time O((S + R) (log S + D) H).

  LeakyReLU is linear on either side of zero, where exp(s + t) is a product. With senders in
  ascending order of s, and the largest m, those of s + t >= 0 are a suffix:

    l_r = LeakyReLU(m + t_r)
    sum_s exp(logit - l_r) x_s =
      sum_{s + t_r >= 0} exp(s - m) x_s
      + exp(-(1 - SLOPE) max(m + t_r, 0)) sum_{s + t_r < 0} exp(SLOPE (s - m)) x_s

  No exponent is positive, and no sum is a difference of sums.

  Args:
    sent: s, `[S, H]`; -inf for a sender that does not exist.
    received: t, `[R, H]`.
    x: `[S, H, D]`.
  """
  return jax.vmap(_sorted_head, in_axes=1, out_axes=1)(sent, received, x)


def merge(own: Partial, parts: Sequence[tuple[jax.Array, Partial]]) -> jax.Array:
  """The softmax-weighted means over all edges of n nodes, `[n, H, D]`.

  Args:
    own: of every node's edge to itself, `R = n`.
    parts: receivers `[..., R]` with their sums, `[..., R, H]`; an id above n is nobody's.
  """
  largest = own.largest
  for receivers, part in parts:
    largest = largest.at[receivers].max(part.largest, mode="drop")
  largest = jax.lax.stop_gradient(largest)
  scale = jnp.exp(own.largest - largest)
  total, message = scale * own.total, scale[..., None] * own.message
  for receivers, part in parts:
    scale = jnp.exp(part.largest - largest.at[receivers].get(mode="clip"))
    total = total.at[receivers].add(scale * part.total, mode="drop")
    message = message.at[receivers].add(scale[..., None] * part.message, mode="drop")
  return message / total[..., None]


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
  return Partial(reference, sums[:, 0], sums[:, 1:])


def _finite(largest: jax.Array) -> jax.Array:
  """Minus infinity, the maximum over no edges, as the least finite number."""
  return jnp.maximum(largest, jnp.finfo(largest.dtype).min)
