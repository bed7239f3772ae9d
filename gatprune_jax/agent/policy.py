"""The policy: a graph-attention encoder and one Bernoulli bit per channel."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from gatprune_jax.agent.encoders import ENCODERS, PolicyConfig
from gatprune_jax.agent.observation import Observation

# This bound keeps the probabilities of both values of a bit above zero. If one of the values were
# never sampled again, the bit would have no gradient.
MAX_LOGIT = 8.0


class Policy(nn.Module):
  """logit_i = head(h_i, group mean of h, global mean of h) + e_i, clipped to [-8, 8].

  h_i is the encoder's output for channel i. The embedding e_i, one scalar per channel,
  distinguishes channels whose features in the graph are alike. The head is initialised to zero, so
  the first logits are the embeddings.

  Attributes:
    config: settings of the encoder.
    num_groups: number of groups of channels.
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
    # A matrix product is used instead of a scatter, because accelerators add scattered numbers in a
    # different order, and so with different rounding, in every run.
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
  """Clips logits to [-8, 8], with a gradient that can bring a logit back inside.

  The derivative of a plain clip is zero outside the bounds, so a logit there would never move
  again. Here, the gradient of a logit outside the bounds passes unchanged where descent moves the
  logit towards the bounds, and is zero where descent would move the logit further away.
  """
  return jnp.clip(logits, -MAX_LOGIT, MAX_LOGIT)


def _bounded_forward(logits):
  return bounded(logits), logits


def _bounded_backward(logits, gradient):
  # Descent moves a logit against its gradient, so a negative gradient increases the logit.
  outward = jnp.where(logits > MAX_LOGIT, gradient < 0, (logits < -MAX_LOGIT) & (gradient > 0))
  return (jnp.where(outward, 0.0, gradient),)


bounded.defvjp(_bounded_forward, _bounded_backward)


def with_embedding(params: Any, embedding: jax.Array) -> Any:
  """Returns the policy's variables with the per-channel embedding `[N]` replaced."""
  return {**params, "params": {**params["params"], "embedding": embedding}}
