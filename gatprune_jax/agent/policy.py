"""The policy: a graph-attention encoder and one Bernoulli bit per channel."""

import dataclasses
from typing import Any

import distrax
from flax import linen as nn
import jax
import jax.numpy as jnp

from gatprune_jax.agent.gat import GraphAttention
from gatprune_jax.agent.observation import Observation
from gatprune_jax.errors import InputError

MAX_LOGIT = 8.0  # a bit that is never sampled again has no gradient


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
  """The encoder.

  Attributes:
    layers: graph-attention layers; 0 passes no messages, each channel sees its own features.
    heads: attention heads of each layer.
    head_features: features per head; the hidden width is heads * head_features.
    edge_norms: whether attention sees the norm of the kernel between two channels. Without them
      it costs O((n + m) log n) for a layer of n inputs and m outputs, not O(n m).
  """

  layers: int = 2
  heads: int = 4
  head_features: int = 8
  edge_norms: bool = True

  def __post_init__(self):
    """Refuses sizes that are not positive."""
    for name, least in (("layers", 0), ("heads", 1), ("head_features", 1)):
      if (value := getattr(self, name)) < least:
        raise InputError(f"policy {name} is {value}: it must be at least {least}")


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
    for index in range(self.config.layers):
      normed = nn.LayerNorm(name=f"norm{index}")(nodes)
      attended = GraphAttention(self.config.heads, self.config.head_features, name=f"gat{index}")(
        normed, observation.blocks
      )
      nodes = nodes + nn.Dense(width, name=f"mix{index}")(nn.elu(attended))
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


def sample(key: jax.Array, logits: jax.Array) -> jax.Array:
  """One independent bit per logit, bool; True = keep."""
  with jax.numpy_rank_promotion("allow"):  # distrax broadcasts over a leading sample axis
    return distrax.Bernoulli(logits=logits, dtype=jnp.bool_).sample(seed=key)


def log_prob(logits: jax.Array, bits: jax.Array) -> jax.Array:
  """Log-probability of each bit, nats."""
  return distrax.Bernoulli(logits=logits).log_prob(bits)


def entropy(logits: jax.Array) -> jax.Array:
  """Entropy of each bit, nats."""
  return distrax.Bernoulli(logits=logits).entropy()


def kl_divergence(logits: jax.Array, other: jax.Array) -> jax.Array:
  """KL(logits || other) of each bit, nats."""
  return distrax.Bernoulli(logits=logits).kl_divergence(distrax.Bernoulli(logits=other))
