"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) with per-channel ratios.

An action is N bits. The ratio of the joint probabilities is the product of N ratios, so with
thousands of channels the joint ratio of nearly every sample would be clipped. Here each bit has its
own ratio, which is clipped separately; at N = 1 both ratios are the same.
"""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gatprune_jax.errors import InputError

_MAX_LOG_RATIO = 20.0  # exp of this bound is finite in float32


@dataclasses.dataclass(frozen=True)
class PPOConfig:
  """Settings of the policy's update on one batch of samples.

  Attributes:
    epochs: passes over the samples of an update.
    clip: epsilon; each channel's ratio is clipped to [1 - epsilon, 1 + epsilon].
    kl_stop: mean KL per channel, nats, beyond which the remaining passes are skipped.
    entropy_weight: coefficient of the bits' mean entropy in the objective.
    learning_rate: Adam's learning rate of the policy's network.
    embedding_learning_rate: Adam's learning rate of the per-channel embeddings.
    max_grad_norm: largest global norm of the gradient; a larger gradient is scaled down to it.
  """

  epochs: int = 4
  clip: float = 0.2
  kl_stop: float = 0.1
  entropy_weight: float = 0.0
  learning_rate: float = 3e-3
  embedding_learning_rate: float = 0.2
  max_grad_norm: float = 1.0

  def __post_init__(self):
    """Raises InputError for values with which the policy cannot learn."""
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if value < 0 or (value == 0 and field.name != "entropy_weight"):
        raise InputError(f"ppo {field.name} is {value}: it must be positive")


def policy_optimizer(config: PPOConfig, params: Any) -> optax.GradientTransformation:
  """Builds Adam with a separate learning rate for the per-channel embedding.

  The optimizer works on all parameters as one vector (`jax.flatten_util.ravel_pytree`), because the
  parameter arrays are many and small, and on accelerators each array would need its own operations.

  Args:
    config: the learning rates and the largest norm of the gradient.
    params: the policy's variables; a leaf named "embedding" gets the embedding's learning rate.
  """
  rates = [
    np.full(
      np.size(leaf),
      config.embedding_learning_rate if path[-1].key == "embedding" else config.learning_rate,
      np.float32,
    )
    for path, leaf in jax.tree.leaves_with_path(params)
  ]
  rates = np.concatenate(rates)
  return optax.chain(
    optax.clip_by_global_norm(config.max_grad_norm),
    optax.scale_by_adam(),
    optax.stateless(lambda steps, _: -rates * steps),
  )


def leave_one_out(utility: jax.Array) -> jax.Array:
  """U_b - mean of U over the other samples, `[B]`, B >= 2."""
  chex.assert_rank(utility, 1)
  num = utility.shape[0]
  # With this shift, equal utilities have a mean without rounding, and give exactly zero.
  utility = utility - utility[0]
  return (utility - utility.mean()) * (num / (num - 1))


def leave_one_out_advantages(utility: jax.Array) -> jax.Array:
  """A_b = U_b - mean of U over the other samples, then divided by the standard deviation of A.

  The baseline does not depend on the sample's own action, so the policy gradient stays unbiased
  (Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free!"). If all utilities are
  equal, every advantage is zero.

  Args:
    utility: U, `[B]`, B >= 2.
  """
  advantage = leave_one_out(utility)
  return advantage / (advantage.std() + 1e-8)


def clipped_objective(
  log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array, clip: float
) -> jax.Array:
  """min(rho A, clip(rho, 1 - eps, 1 + eps) A), with rho = exp(log_prob - old_log_prob).

  Args:
    log_prob: log-probability of each bit under the current policy, `[..., N]`.
    old_log_prob: log-probability of each bit when it was sampled, `[..., N]`.
    advantage: advantage A of each bit, `[..., N]`, or a scalar for all bits.
    clip: epsilon.

  Returns:
    The objective of each bit, `[..., N]`, to be maximised.
  """
  chex.assert_equal_shape([log_prob, old_log_prob])
  log_ratio = jnp.clip(log_prob - old_log_prob, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)
  ratio = jnp.exp(log_ratio)
  return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)
