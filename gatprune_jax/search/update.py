"""One update of the agent: it samples and scores masks, then improves policy and multipliers.

Between the compiled parts of an update the masks are on the host, where the scorer scores them by
the same program as those of every other method.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.agent import (
  Experience,
  Learner,
  Multipliers,
  Surrogate,
  compete,
  fit_surrogate,
  remember,
  set_units,
  update_multipliers,
  utility,
  utility_surrogate,
)
from gatprune_jax.runs.health import all_finite, take_if_finite
from gatprune_jax.runtime import compilation, mesh
from gatprune_jax.search.incumbent import Incumbent, challenge
from gatprune_jax.search.mdp import transition
from gatprune_jax.search.replay import Queue, add, latest, queue_new
from gatprune_jax.search.scorer import Scorer
from gatprune_jax.search.search_config import SearchConfig
from gatprune_jax.search.state import SearchState, UpdateInputs

# For each roll-back, this number is added to the step number of the random key, so that repeated
# steps draw new samples. It is the largest power of two that three roll-backs can add to an int32.
_AFTER_ROLLBACK = 2**29


class Sample(NamedTuple):
  """Masks that the policy sampled, before they are scored."""

  actions: Any  # what the learner's actor chose, [B, ...]
  behaviour: Any  # the distributions that the actions were drawn from
  masks: jax.Array  # [B, N] bool
  queue: Queue  # those of the masks that are new


class Challenger(NamedTuple):
  """The best feasible mask of an update."""

  mask: jax.Array  # [N] bool
  score: jax.Array  # scalar, on the reward images; -inf where no mask is feasible


def compile_update(
  config: SearchConfig, learner: Learner, scorer: Scorer
) -> Callable[[SearchState, UpdateInputs], tuple[SearchState, dict[str, jax.Array]]]:
  """Compiles one update as a function `(state, inputs) -> (next state, metrics)`.

  The function reuses the memory of the state. The metrics are those of `improve`.

  Args:
    config: settings.
    learner: how the policy acts and learns.
    scorer: scores masks on the reward images and on the confirmation images.
  """
  jit = functools.partial(compilation.jit, out_shardings=mesh.everywhere())
  sample_masks = jit(functools.partial(sample, config, learner))
  improve_policy = jit(functools.partial(improve, config, learner), donate_argnums=0)
  confirm_best = jit(confirm, donate_argnums=0)

  def update(state, inputs):
    sampled = sample_masks(state, inputs)
    queue, count = mesh.to_host((sampled.queue.masks, sampled.queue.count))
    scores, accuracies = np.zeros((2, len(queue)), np.float32)
    if count:
      scores[:count], accuracies[:count] = scorer.on_reward(queue[:count])
    scored = mesh.replicate((scores, accuracies))
    state, metrics, challenger = improve_policy(state, inputs, sampled, *scored)
    (confirmation,) = scorer.on_confirmation(mesh.to_host(challenger.mask)[None])
    return confirm_best(state, challenger, mesh.replicate(confirmation)), metrics

  return update


def sample(
  config: SearchConfig, learner: Learner, state: SearchState, inputs: UpdateInputs
) -> Sample:
  """Samples B masks from the policy.

  Args:
    config: settings; static.
    learner: how the policy acts and learns; static.
    state: the state after the previous update.
    inputs: the constants of the search: environment, observation and random key.
  """
  # A step that a roll-back repeats draws different samples, because the same samples would fail
  # again.
  draw = state.step + _AFTER_ROLLBACK * state.health.rollbacks
  key = jax.random.fold_in(inputs.key, draw)
  actions, behaviour = learner.act(state.learner, inputs, config.samples, key)
  masks = jax.vmap(lambda bits: transition(inputs.environment, bits))(actions)
  return Sample(actions, behaviour, masks, queue_new(state.replay, masks))


def improve(
  config: SearchConfig,
  learner: Learner,
  state: SearchState,
  inputs: UpdateInputs,
  sampled: Sample,
  new_scores: jax.Array,
  new_accuracies: jax.Array,
) -> tuple[SearchState, dict[str, jax.Array], Challenger]:
  """Improves multipliers and policy from scored samples.

  The multipliers are updated before the policy. If any logit, score, accuracy, multiplier or
  learned value is not finite, the update is skipped: the state stays as it was, except that the
  step advances and `health` counts the skipped update.

  Args:
    config: settings; static.
    learner: how the policy acts and learns; static.
    state: the state in which the masks were sampled.
    inputs: the constants of the search.
    sampled: from `sample`.
    new_scores: scores on the reward images of the masks in the queue, `[B]`.
    new_accuracies: the task's mean scores of these masks, `[B]`.

  Returns:
    The next state, whose incumbent is the old one; scalars (or arrays `[K]`, one value per
    constraint) to log; and the mask that challenges the incumbent, see `confirm`.
  """
  env, (actions, behaviour, masks, queue) = inputs.environment, sampled
  replay = add(state.replay, queue, new_scores, new_accuracies)
  scores, accuracy = replay.scores[queue.where], replay.accuracies[queue.where]
  violation = jax.vmap(env.budgets.violations)(masks)  # [B, K]
  feasible = env.budgets.within_tolerance(violation)

  # Update the multipliers, then combine rewards and violations at the new prices.
  reward = compete(config.self_competition, scores, state.past)
  multipliers = set_units(state.multipliers, reward, violation)
  multipliers = update_multipliers(config.dual, multipliers, violation.mean(0))
  gain = utility(reward, violation, multipliers.value)

  # Fit the critic and improve the policy.
  surrogate, explained = None, jnp.zeros(())
  if config.critic.window:
    surrogate = _fit_critic(config, state, inputs, multipliers, behaviour.probs.mean(0))
    explained = 1 - (gain - surrogate(masks)).var() / (gain.var() + 1e-8)
  experience = Experience(actions, behaviour, gain, surrogate)
  learned, told = learner.update(state.learner, inputs, experience, state.health.rate)

  new_state = SearchState(
    step=state.step + 1,
    learner=learned,
    multipliers=multipliers,
    past=remember(state.past, scores, feasible),
    replay=replay,
    incumbent=state.incumbent,
    health=state.health,
  )
  finite = all_finite((behaviour.logits, scores, accuracy, learned, multipliers.value, told))
  new_state = take_if_finite(finite, new_state, state.replace(step=state.step + 1))
  if_feasible = jnp.where(feasible & finite, scores, -jnp.inf)
  metrics = {
    "reward": reward.mean(),
    "score": scores.mean(),
    "accuracy": accuracy.mean(),
    "best_feasible_accuracy": jnp.where(feasible, accuracy, -jnp.inf).max(),
    "feasible_share": feasible.mean(),
    "cost": jax.vmap(env.budgets.ratios)(masks).mean(0),
    "multiplier": multipliers.value,
    "entropy": behaviour.entropy().mean(),
    "explained": explained,
    "evaluations": replay.size,
    **told,
    "skipped": new_state.health.skipped,
    "rollbacks": new_state.health.rollbacks,
  }
  return new_state, metrics, Challenger(masks[if_feasible.argmax()], if_feasible.max())


def confirm(state: SearchState, challenger: Challenger, confirmation: jax.Array) -> SearchState:
  """Lets the best mask of an update challenge the incumbent.

  Args:
    state: the state after `improve`.
    challenger: from `improve`; it loses where its score is not finite.
    confirmation: its score of each confirmation image, `[a]`.
  """
  incumbent = challenge(state.incumbent, Incumbent(*challenger, confirmation))
  return state.replace(incumbent=incumbent)


def _fit_critic(
  config: SearchConfig,
  state: SearchState,
  inputs: UpdateInputs,
  multipliers: Multipliers,
  probabilities: jax.Array,
) -> Surrogate:
  """Fits the utility as a linear function of the mask, around the policy's probabilities `[N]`.

  The reward is fitted to the masks of earlier updates; the costs are linearised, not learned.
  """
  masks, scores, used = latest(state.replay, config.critic.window)
  rewards = compete(config.self_competition, scores, state.past)
  features = inputs.observation.channels
  reward = fit_surrogate(masks, rewards, used, features, config.critic.prior)
  violations = inputs.environment.budgets.violations
  return utility_surrogate(reward, violations, multipliers.value, probabilities)
