"""The policy: a graph-attention encoder and one Bernoulli bit per channel."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from gatprune_jax.agent.encoders import ENCODERS, PolicyConfig
from gatprune_jax.agent.observation import Observation

MAX_LOGIT = 8.0  # a bit that is never sampled again has no gradient


class Policy(nn.Module):
  """logit_i = head(GAT embedding_i, group mean, global mean) + e_i, clipped to [-8, 8].

  The embedding e_i, one scalar per channel, tells channels apart that look alike to the graph.
  The head starts at zero, so that the first logits are the embeddings.

  Attributes:
    config: the encoder.
    num_groups: groups of channels.
  """

  config: PolicyConfig
  num_groups: int

  @nn.compact
  def __call__(self, observation: Observation, dynamic: jax.Array) -> jax.Array:
    """Maps the observation and dynamic features `[N, D]` to logits `[N]` of "keep"."""
    width = self.config.heads * self.config.head_features
    num = dynamic.shape[0]
    channels = jnp.concatenate([observation.channels, dynamic], axis=1)
    nodes = jnp.concatenate(
      [
        nn.Dense(width, name="embed_channels")(channels),
        nn.Dense(width, name="embed_layers")(observation.layers),
      ]
    )
    nodes = ENCODERS[self.config.encoder].encode(self.config, nodes, observation.edges)
    hidden = nn.LayerNorm(name="norm_out")(nodes[:num])
    # A product, not a scatter: accelerators add scattered numbers in a new order in every run.
    member = jax.nn.one_hot(observation.group_of, self.num_groups)
    group_mean = member.T @ hidden / member.sum(0)[:, None]
    everything = jnp.broadcast_to(hidden.mean(0), hidden.shape)
    context = jnp.concatenate([hidden, member @ group_mean, everything], axis=1)
    context = nn.elu(nn.Dense(width, name="head_hidden")(context))
    head = nn.Dense(1, kernel_init=nn.initializers.zeros, name="head")(context)[:, 0]
    embedding = self.param("embedding", nn.initializers.zeros, (num,))
    return bounded(head + embedding)


@jax.custom_vjp
def bounded(logits: jax.Array) -> jax.Array:
  """Logits clipped to [-8, 8], with a gradient that leads back.

  Descent along it moves a logit that is outside towards the bounds as the loss asks, and no further
  away: the derivative of a clip, zero outside, would keep it there for good.
  """
  return jnp.clip(logits, -MAX_LOGIT, MAX_LOGIT)


def _bounded_forward(logits):
  return bounded(logits), logits


def _bounded_backward(logits, gradient):
  # Descent moves against the gradient.
  outward = jnp.where(logits > MAX_LOGIT, gradient < 0, (logits < -MAX_LOGIT) & (gradient > 0))
  return (jnp.where(outward, 0.0, gradient),)


bounded.defvjp(_bounded_forward, _bounded_backward)


def with_embedding(params: Any, embedding: jax.Array) -> Any:
  """The policy's variables with the per-channel embedding `[N]` replaced."""
  return {**params, "params": {**params["params"], "embedding": embedding}}
