"""One update of the agent: it samples and scores masks, then improves policy and multipliers."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from gatprune_jax.agent import (
  Experience,
  Learner,
  LearnerState,
  Multipliers,
  Observation,
  PastScores,
  Surrogate,
  compete,
  fit_surrogate,
  init_multipliers,
  init_past,
  remember,
  set_units,
  update_multipliers,
  utility,
  utility_surrogate,
)
from gatprune_jax.evaluation import Evaluator
from gatprune_jax.runs.health import Health, all_finite, healthy, take_if_finite
from gatprune_jax.runtime.maps import first_rows
from gatprune_jax.search.incumbent import Incumbent, challenge
from gatprune_jax.search.mdp import Environment, transition
from gatprune_jax.search.replay import Replay, latest, score_new
from gatprune_jax.search.scorer import Images, image_scores
from gatprune_jax.search.search_config import SearchConfig

# For each roll-back, this number is added to the step number of the random key, so that repeated
# steps draw new samples. It is the largest power of two that three roll-backs can add to an int32.
_AFTER_ROLLBACK = 2**29


class UpdateInputs(NamedTuple):
  """Constant inputs of every update; arrays only, so it can be an argument under jit."""

  environment: Environment
  observation: Observation
  images: Images
  key: jax.Array


@flax.struct.dataclass
class SearchState:
  """State of the search between two updates."""

  step: jax.Array  # scalar int32
  learner: LearnerState
  multipliers: Multipliers
  past: PastScores
  replay: Replay
  incumbent: Incumbent
  health: Health


def init_state(
  config: SearchConfig,
  num_constraints: int,
  learner: LearnerState,
  incumbent: Incumbent,
  replay: Replay,
) -> SearchState:
  """Returns the state before the first update.

  Args:
    config: settings.
    num_constraints: K, the number of budgets.
    learner: the initial state of the learner.
    incumbent: the best classical mask.
    replay: holds the classical masks; their scores are the first past scores of self-competition.
  """
  # If more scores were written at once than the ring buffer holds, it would be undefined which ones
  # stay.
  past = replay.scores[: min(int(replay.size), config.past_scores)]
  return SearchState(
    step=jnp.zeros((), jnp.int32),
    learner=learner,
    multipliers=init_multipliers(num_constraints),
    past=remember(init_past(config.past_scores), past, jnp.ones(len(past), bool)),
    replay=replay,
    incumbent=incumbent,
    health=healthy(),
  )


def update(
  config: SearchConfig,
  learner: Learner,
  evaluator: Evaluator,
  state: SearchState,
  inputs: UpdateInputs,
) -> tuple[SearchState, dict[str, jax.Array]]:
  """Samples B masks from the policy, scores them, and improves policy and multipliers.

  The multipliers are updated before the policy. If any logit, score, accuracy, multiplier or
  learned value is not finite, the update is skipped: the state stays as it was, except that the
  step advances and `health` counts the skipped update. The whole update is one compiled call.

  Args:
    config: settings; static.
    learner: how the policy acts and learns; static.
    evaluator: scores one mask; static.
    state: the state after the previous update.
    inputs: the constants of the search: environment, observation, images and random key.

  Returns:
    The next state, and scalars (or arrays `[K]`, one value per constraint) to log.
  """
  env, images = inputs.environment, inputs.images
  # Sample masks. A step that a roll-back repeats draws different samples, because the same samples
  # would fail again.
  draw = state.step + _AFTER_ROLLBACK * state.health.rollbacks
  key = jax.random.fold_in(inputs.key, draw)
  actions, behaviour = learner.act(state.learner, inputs, config.samples, key)
  masks = jax.vmap(lambda bits: transition(env, bits))(actions)

  # Score the masks that are new.
  def on_reward(mask, images):
    scored = evaluator.score(images.weights, mask, images.reward_x, images.reward_y)
    return image_scores(config, scored).mean(), scored.score.mean()

  score_first = lambda masks, count: first_rows(on_reward, masks, count, evaluator.chunk, images)
  replay, scores, accuracy = score_new(state.replay, masks, score_first)
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

  # Record the scores, and let the best feasible mask challenge the incumbent.
  if_feasible = jnp.where(feasible, scores, -jnp.inf)
  best = masks[if_feasible.argmax()]
  scored = evaluator.score(images.weights, best, images.confirmation_x, images.confirmation_y)
  challenger = Incumbent(best, if_feasible.max(), image_scores(config, scored))
  new_state = SearchState(
    step=state.step + 1,
    learner=learned,
    multipliers=multipliers,
    past=remember(state.past, scores, feasible),
    replay=replay,
    incumbent=challenge(state.incumbent, challenger),
    health=state.health,
  )
  finite = all_finite((behaviour.logits, scores, accuracy, learned, multipliers.value, told))
  new_state = take_if_finite(finite, new_state, state.replace(step=state.step + 1))
  return new_state, {
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
