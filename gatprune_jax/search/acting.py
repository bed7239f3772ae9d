"""The agent's policy in the MDP: it samples one bit per channel, in the steps of the schedule."""

from typing import Any

import jax
import jax.numpy as jnp

from gatprune_jax.agent import Actor, Distribution, Policy, bits, dynamic_features
from gatprune_jax.search.mdp import LogitsFn, decision_logits, rollout


def policy_logits(policy: Policy, params: Any, inputs: Any) -> LogitsFn:
  """Returns the policy as a function of the MDP's state alone.

  Args:
    policy: the policy's network.
    params: its variables.
    inputs: the search's `UpdateInputs`.
  """

  def logits_fn(mask, decided):
    slack = inputs.environment.budgets.violations(mask)
    dynamic = dynamic_features(mask, decided, slack)
    return policy.apply(params, inputs.observation, dynamic)

  return logits_fn


def mask_actor(policy: Policy) -> Actor:
  """Returns an actor whose actions are the bits `[N]` of an episode; see `mdp.rollout`."""

  def init(key: jax.Array, inputs: Any) -> Any:
    env = inputs.environment
    num_channels, num_constraints = len(env.group_of), len(env.budgets.names)
    # The features are two flags and the slack of each constraint; see `dynamic_features`.
    dynamic = jnp.zeros((num_channels, 2 + num_constraints))
    return policy.init(key, inputs.observation, dynamic)

  def act(params: Any, inputs: Any, num: int, key: jax.Array) -> tuple[jax.Array, Distribution]:
    logits_fn = policy_logits(policy, params, inputs)
    sampled, logits = rollout(inputs.environment, logits_fn, num, key)
    return sampled, bits(logits)

  def distribution(params: Any, inputs: Any, actions: jax.Array) -> Distribution:
    logits_fn = policy_logits(policy, params, inputs)
    return bits(decision_logits(inputs.environment, logits_fn, actions))

  return Actor(init, act, distribution)
