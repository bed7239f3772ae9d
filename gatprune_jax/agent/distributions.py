"""Distributions of actions, from distrax: each number of an action is drawn on its own."""

import distrax
import jax
import jax.numpy as jnp

Distribution = distrax.Distribution


def bits(logits: jax.Array) -> Distribution:
  """One bit per logit, bool; True = keep. P(True) = sigmoid(logit)."""
  return distrax.Bernoulli(logits=logits, dtype=jnp.bool_)


def gaussian(mean: jax.Array, deviation: jax.Array) -> Distribution:
  """One number per mean, with a standard deviation of the same shape."""
  return distrax.Normal(mean, deviation)


def sample(key: jax.Array, distribution: Distribution) -> jax.Array:
  """One action."""
  with jax.numpy_rank_promotion("allow"):  # distrax broadcasts over a leading sample axis
    return distribution.sample(seed=key)
