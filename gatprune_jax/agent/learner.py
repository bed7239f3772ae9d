"""Learners: algorithms that improve a policy from sampled actions and their utilities.

A learner is three pure functions (`Learner`). It accesses its policy through three more (`Actor`),
so one implementation of PPO serves every policy. A new learner is one entry of `LEARNERS`.
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
  policy_optimizer,
)


class Actor(NamedTuple):
  """Policy, as pure functions of its parameters and of its inputs.

  Attributes:
    init: (key, inputs) -> the initial parameters.
    act: (parameters, inputs, B, key) -> actions `[B, D]`, and the distribution from which they were
      drawn.
    distribution: (parameters, inputs, actions `[B, D]`) -> the distribution from which these
      parameters would have drawn the actions; differentiable in the parameters.
  """

  init: Callable[[jax.Array, Any], Any]
  act: Callable[[Any, Any, int, jax.Array], tuple[jax.Array, Distribution]]
  distribution: Callable[[Any, Any, jax.Array], Distribution]


class Experience(NamedTuple):
  """Batch of B sampled actions from which a learner learns."""

  actions: jax.Array  # [B, D]
  behaviour: Distribution  # from which the actions were drawn
  utility: jax.Array  # [B]
  surrogate: Surrogate | None = None  # of the utility as a function of the bits; None: no critic


@flax.struct.dataclass
class LearnerState:
  """State of a learner between two updates."""

  params: Any  # the policy's parameters
  opt_state: Any


class Learner(NamedTuple):
  """Learning algorithm of a policy, as pure functions.

  Attributes:
    init: (key, inputs) -> the initial state.
    act: (state, inputs, B, key) -> actions and their distribution, see `Actor.act`.
    update: (state, inputs, experience, rate) -> the next state, and scalars to log. All learning
      rates are multiplied by `rate`.
  """

  init: Callable[[jax.Array, Any], LearnerState]
  act: Callable[[LearnerState, Any, int, jax.Array], tuple[jax.Array, Distribution]]
  update: Callable[
    [LearnerState, Any, Experience, jax.Array], tuple[LearnerState, dict[str, jax.Array]]
  ]


class LearnerConfig(Protocol):
  """Sections of a search's settings that a learner reads."""

  ppo: PPOConfig
  critic: CriticConfig


def ppo(config: LearnerConfig, actor: Actor) -> Learner:
  """Builds a learner by proximal policy optimisation, with one ratio for each entry of an action.

  An update makes a few passes over one batch. It stops changing the policy once the mean KL
  divergence from the behaviour distribution exceeds `PPOConfig.kl_stop`. The objective is described
  in `gatprune_jax.agent.ppo`.

  Args:
    config: settings, of which the sections `ppo` and `critic` are read.
    actor: the policy.
  """
  settings = config.ppo

  def init(key: jax.Array, inputs: Any) -> LearnerState:
    params = actor.init(key, inputs)
    return LearnerState(params, policy_optimizer(settings, params).init(ravel_pytree(params)[0]))

  def act(state, inputs, num, key):
    return actor.act(state.params, inputs, num, key)

  def update(state, inputs, experience, rate):
    actions, behaviour = experience.actions, experience.behaviour
    advantage = _advantages(experience, config.critic.residual_weight)
    optimizer = policy_optimizer(settings, state.params)
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
  """Computes the advantage of each entry of each action, `[B, D]`, with the critic if any."""
  actions, behaviour, utility, surrogate = experience
  if surrogate is None:
    return jnp.broadcast_to(leave_one_out_advantages(utility)[:, None], actions.shape)
  return counterfactual_advantages(utility, actions, behaviour.probs, surrogate, residual_weight)


LEARNERS: dict[str, Callable[[LearnerConfig, Actor], Learner]] = {"ppo": ppo}
