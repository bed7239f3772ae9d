"""Distributions of actions, from distrax; the entries of an action are drawn independently."""

import distrax
import jax
import jax.numpy as jnp

Distribution = distrax.Distribution


def bits(logits: jax.Array) -> Distribution:
  """Returns a distribution of one bool bit per logit: True = keep, P(True) = sigmoid(logit)."""
  return distrax.Bernoulli(logits=logits, dtype=jnp.bool_)


def gaussian(mean: jax.Array, deviation: jax.Array) -> Distribution:
  """Returns a normal distribution per mean, with standard deviations of the same shape."""
  return distrax.Normal(mean, deviation)


def sample(key: jax.Array, distribution: Distribution) -> jax.Array:
  """Draws one action from the distribution."""
  with jax.numpy_rank_promotion("allow"):  # distrax broadcasts over a leading sample axis
    return distribution.sample(seed=key)
