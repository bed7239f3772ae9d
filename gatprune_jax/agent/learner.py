"""Learners: from actions that were sampled, and their utility, to a better policy.

A learner is three pure functions, and knows its policy as three more (`Actor`). PPO is written here
once, for every policy. A new learner is an entry of `LEARNERS`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import chex
import flax.struct
import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import optax

from gatprune_jax.agent.critic import CriticConfig, Surrogate, counterfactual_advantages
from gatprune_jax.agent.distributions import Distribution
from gatprune_jax.agent.ppo import (
  PPOConfig,
  clipped_objective,
  leave_one_out_advantages,
  make_optimizer,
)


class Actor(NamedTuple):
  """A policy, as functions of its parameters and of what they are to act on.

  Attributes:
    init: (key, inputs) -> the first parameters.
    act: (parameters, inputs, B, key) -> actions `[B, D]`, and the distribution that each was drawn
      from.
    distribution: (parameters, inputs, actions `[B, D]`) -> the distribution that these parameters
      would have drawn each from; differentiable.
  """

  init: Callable[[jax.Array, Any], Any]
  act: Callable[[Any, Any, int, jax.Array], tuple[jax.Array, Distribution]]
  distribution: Callable[[Any, Any, jax.Array], Distribution]


class Experience(NamedTuple):
  """What a learner learns from."""

  actions: jax.Array  # [B, D]
  behaviour: Distribution  # that they were drawn from
  utility: jax.Array  # [B]
  surrogate: Surrogate | None = None  # of the utility as a function of bits, where there is one


@flax.struct.dataclass
class LearnerState:
  """What a learner carries from update to update."""

  params: Any  # the policy's
  opt_state: Any


class Learner(NamedTuple):
  """How a policy learns.

  Attributes:
    init: (key, inputs) -> the first state.
    act: (state, inputs, B, key) -> actions and their distribution, see `Actor.act`.
    update: (state, inputs, experience, rate) -> the next state, and scalars to log. The rate is a
      factor of all learning rates.
  """

  init: Callable[[jax.Array, Any], LearnerState]
  act: Callable[[LearnerState, Any, int, jax.Array], tuple[jax.Array, Distribution]]
  update: Callable[
    [LearnerState, Any, Experience, jax.Array], tuple[LearnerState, dict[str, jax.Array]]
  ]


class LearnerConfig(Protocol):
  """What a learner reads of a search's settings."""

  ppo: PPOConfig
  critic: CriticConfig


def ppo(config: LearnerConfig, actor: Actor) -> Learner:
  """Proximal policy optimisation with one probability ratio for each number of an action.

  An update is a few epochs on one batch. It stops changing the policy once the mean KL divergence
  from the behaviour is too large. See `gatprune_jax.agent.ppo` for the objective.

  Args:
    config: its sections `ppo` and `critic`.
    actor: the policy.
  """
  settings = config.ppo

  def init(key: jax.Array, inputs: Any) -> LearnerState:
    params = actor.init(key, inputs)
    return LearnerState(params, make_optimizer(settings, params).init(ravel_pytree(params)[0]))

  def act(state, inputs, num, key):
    return actor.act(state.params, inputs, num, key)

  def update(state, inputs, experience, rate):
    actions, behaviour = experience.actions, experience.behaviour
    advantage = _advantages(experience, config.critic.residual_weight)
    optimizer = make_optimizer(settings, state.params)
    vector, as_params = ravel_pytree(state.params)
    old_log_prob = behaviour.log_prob(actions)
    chex.assert_equal_shape([actions, old_log_prob, advantage])

    def loss_fn(vector):
      distribution = actor.distribution(as_params(vector), inputs, actions)
      log_prob = distribution.log_prob(actions)
      objective = clipped_objective(log_prob, old_log_prob, advantage, settings.clip)
      loss = -objective.mean() - settings.entropy_weight * distribution.entropy().mean()
      return loss, behaviour.kl_divergence(distribution).mean()

    def epoch(_, carry):
      vector, opt_state, num_steps, _ = carry
      (_, kl), grads = jax.value_and_grad(loss_fn, has_aux=True)(vector)
      updates, new_opt_state = optimizer.update(grads, opt_state)
      new = (optax.apply_updates(vector, rate * updates), new_opt_state)
      near = kl <= settings.kl_stop
      vector, opt_state = jax.tree.map(lambda a, b: jnp.where(near, a, b), new, (vector, opt_state))
      return vector, opt_state, num_steps + near, kl

    start = (vector, state.opt_state, jnp.zeros((), jnp.int32), jnp.zeros(()))
    vector, opt_state, num_steps, kl = jax.lax.fori_loop(0, settings.epochs, epoch, start)
    return LearnerState(as_params(vector), opt_state), {"policy_steps": num_steps, "kl": kl}

  return Learner(init, act, update)


def _advantages(experience: Experience, residual_weight: float) -> jax.Array:
  """Of each number of each action, `[B, D]`: counterfactual where there is a critic."""
  actions, behaviour, utility, surrogate = experience
  if surrogate is None:
    return jnp.broadcast_to(leave_one_out_advantages(utility)[:, None], actions.shape)
  return counterfactual_advantages(utility, actions, behaviour.probs, surrogate, residual_weight)


LEARNERS: dict[str, Callable[[LearnerConfig, Actor], Learner]] = {"ppo": ppo}
