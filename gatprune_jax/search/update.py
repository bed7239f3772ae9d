"""One update of the agent, a single compiled call: sample, score, price, learn, remember."""

from typing import Any, NamedTuple

import flax.struct
import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import optax

from gatprune_jax.agent import (
  Multipliers,
  Observation,
  PastScores,
  Policy,
  Surrogate,
  clipped_objective,
  compete,
  counterfactual_advantages,
  dynamic_features,
  entropy,
  fit_surrogate,
  init_multipliers,
  init_past,
  kl_divergence,
  leave_one_out_advantages,
  log_prob,
  make_optimizer,
  remember,
  update_multipliers,
  utility,
)
from gatprune_jax.evaluation import Evaluator
from gatprune_jax.runs.health import Health, all_finite, healthy, take_if_finite
from gatprune_jax.runtime.maps import first_rows
from gatprune_jax.search.config import SearchConfig
from gatprune_jax.search.mdp import Environment, LogitsFn, decision_logits, rollout, transition
from gatprune_jax.search.replay import Replay, score_new
from gatprune_jax.search.scorer import Images, image_scores

_AFTER_ROLLBACK = 2**29  # steps; the largest power of two of which three roll-backs fit an int32


class UpdateInputs(NamedTuple):
  """Everything an update reads and does not change; arrays only, an argument under jit."""

  environment: Environment
  observation: Observation
  images: Images
  key: jax.Array


@flax.struct.dataclass
class Incumbent:
  """The mask to beat. Replaced only by one that wins on both splits."""

  mask: jax.Array  # [N] bool
  score: jax.Array  # scalar, on the reward split
  arena: jax.Array  # [a] score of each arena image


@flax.struct.dataclass
class SearchState:
  """What one update carries to the next."""

  step: jax.Array  # scalar int32
  params: Any  # the policy's variables
  opt_state: Any
  multipliers: Multipliers
  past: PastScores
  replay: Replay
  incumbent: Incumbent
  health: Health


def init_state(
  config: SearchConfig, num_constraints: int, params: Any, incumbent: Incumbent, replay: Replay
) -> SearchState:
  """The state before the first update.

  Args:
    config: settings.
    num_constraints: K.
    params: the policy's variables.
    incumbent: the best classical mask.
    replay: holds the classical masks, the first to compete against.
  """
  past = replay.scores[: int(replay.size)]
  past = past[: config.past_scores]  # of more, the ring could not say which it keeps
  return SearchState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=make_optimizer(config.ppo, params).init(ravel_pytree(params)[0]),
    multipliers=init_multipliers(num_constraints),
    past=remember(init_past(config.past_scores), past, jnp.ones(len(past), bool)),
    replay=replay,
    incumbent=incumbent,
    health=healthy(),
  )


def policy_logits(policy: Policy, params: Any, inputs: UpdateInputs) -> LogitsFn:
  """The policy as a function of the state alone."""

  def logits_fn(mask, decided):
    slack = inputs.environment.budgets.violations(mask)
    dynamic = dynamic_features(mask, decided, slack)
    return policy.apply(params, inputs.observation, dynamic)

  return logits_fn


def update(
  config: SearchConfig,
  policy: Policy,
  evaluator: Evaluator,
  state: SearchState,
  inputs: UpdateInputs,
) -> tuple[SearchState, dict[str, jax.Array]]:
  """Samples B masks from the policy, scores them, and improves policy and multipliers.

  The multipliers move before the policy. Where logits, scores, accuracies or the new parameters
  are not finite, nothing is learned or remembered but that. The whole update is one compiled call.

  Args:
    config: settings; static.
    policy: the network; static.
    evaluator: scores one mask; static.
    state: from the last update.
    inputs: the network to prune and its data.

  Returns:
    The next state, and scalars (or `[K]`, per constraint) to log.
  """
  env, images = inputs.environment, inputs.images
  # Steps that a roll-back repeats draw other samples: the same ones would fail again.
  draw = state.step + _AFTER_ROLLBACK * state.health.rollbacks
  key = jax.random.fold_in(inputs.key, draw)
  bits, logits = rollout(env, policy_logits(policy, state.params, inputs), config.samples, key)
  masks = jax.vmap(lambda b: transition(env, b))(bits)

  def on_reward(mask, images):
    scored = evaluator.score(images.weights, mask, images.reward_x, images.reward_y)
    return image_scores(config, scored).mean(), scored.score.mean()

  score_first = lambda masks, count: first_rows(on_reward, masks, count, evaluator.chunk, images)
  replay, scores, accuracy = score_new(state.replay, masks, score_first)
  violation = jax.vmap(env.budgets.violations)(masks)  # [B, K]
  feasible = env.budgets.met(violation)

  multipliers = update_multipliers(config.dual, state.multipliers, violation.mean(0))
  reward = compete(config.self_competition, scores, state.past)
  gain = utility(reward, violation, multipliers.value)
  probabilities = jax.nn.sigmoid(logits)
  if config.critic.window:
    surrogate = _surrogate_utility(config, inputs, state, multipliers, probabilities.mean(0))
    # Of the bits, which are independent; floors and projections make masks of them that are not.
    advantage = counterfactual_advantages(
      gain, bits, probabilities, surrogate, config.critic.residual_weight
    )
    explained = 1 - (gain - surrogate(masks)).var() / (gain.var() + 1e-8)
  else:
    advantage = jnp.broadcast_to(leave_one_out_advantages(gain)[:, None], bits.shape)
    explained = jnp.zeros(())
  params, opt_state, learned = _improve(config, policy, state, inputs, bits, logits, advantage)

  best = jnp.where(feasible, scores, -jnp.inf).argmax()
  scored = evaluator.score(images.weights, masks[best], images.arena_x, images.arena_y)
  arena = image_scores(config, scored)
  challenger = Incumbent(masks[best], jnp.where(feasible[best], scores[best], -jnp.inf), arena)
  metrics = {
    "reward": reward.mean(),
    "score": scores.mean(),
    "accuracy": accuracy.mean(),
    "best_feasible_accuracy": jnp.where(feasible, accuracy, -jnp.inf).max(),
    "feasible_share": feasible.mean(),
    "cost": jax.vmap(env.budgets.ratios)(masks).mean(0),
    "multiplier": multipliers.value,
    "entropy": entropy(logits).mean(),
    "explained": explained,
    "evaluations": replay.size,
    **learned,
  }
  new_state = SearchState(
    step=state.step + 1,
    params=params,
    opt_state=opt_state,
    multipliers=multipliers,
    past=remember(state.past, scores, feasible),
    replay=replay,
    incumbent=challenge(state.incumbent, challenger),
    health=state.health,
  )
  finite = all_finite((logits, scores, accuracy, params, multipliers.value, learned["kl"]))
  new_state = take_if_finite(finite, new_state, state.replace(step=state.step + 1))
  metrics["skipped"], metrics["rollbacks"] = new_state.health.skipped, new_state.health.rollbacks
  return new_state, metrics


def challenge(incumbent: Incumbent, challenger: Incumbent) -> Incumbent:
  """The challenger where it wins on the reward split and, by a standard error, in the arena.

  The largest of many noisy scores is too high by construction; the arena's paired difference is
  on images that did not choose the challenger. Who is not finite in the arena loses to who is.
  """
  difference = challenger.arena - incumbent.arena
  standard_error = difference.std(ddof=1) / jnp.sqrt(difference.shape[0])
  better = (challenger.score > incumbent.score) & (difference.mean() > standard_error)
  wins = all_finite((challenger.score, challenger.arena)) & (better | ~all_finite(incumbent.arena))
  return jax.tree.map(lambda new, old: jnp.where(wins, new, old), challenger, incumbent)


def _surrogate_utility(
  config: SearchConfig,
  inputs: UpdateInputs,
  state: SearchState,
  multipliers: Multipliers,
  probabilities: jax.Array,
) -> Surrogate:
  """The utility as a linear function of the mask, around the policy's probabilities `[N]`.

  Rewards come from a regression on masks of earlier updates, costs are linearised.
  """
  replay, price = state.replay, multipliers.value
  num = min(config.critic.window, len(replay.scores))
  latest = replay.size - num + jnp.arange(num)
  valid, latest = latest >= 0, jnp.maximum(latest, 0)
  reward = fit_surrogate(
    replay.masks[latest],
    compete(config.self_competition, replay.scores[latest], state.past),
    valid,
    inputs.observation.channels,
    config.critic.prior,
  )
  violation, pull = jax.vjp(inputs.environment.budgets.violations, probabilities)
  (marginal,) = pull(price.astype(violation.dtype))
  scale = 1 + price.sum()
  return Surrogate(
    (reward.weights - marginal) / scale,
    probabilities,
    (reward(probabilities) - price @ violation) / scale,
  )


def _improve(
  config: SearchConfig,
  policy: Policy,
  state: SearchState,
  inputs: UpdateInputs,
  bits: jax.Array,
  old_logits: jax.Array,
  advantage: jax.Array,
) -> tuple[Any, Any, dict[str, jax.Array]]:
  """Epochs of PPO on one batch; stops changing once the mean KL per channel is too large."""
  ppo, optimizer = config.ppo, make_optimizer(config.ppo, state.params)
  vector, as_params = ravel_pytree(state.params)
  old_log_prob = log_prob(old_logits, bits)

  def loss_fn(vector):
    logits_fn = policy_logits(policy, as_params(vector), inputs)
    logits = decision_logits(inputs.environment, logits_fn, bits)
    objective = clipped_objective(log_prob(logits, bits), old_log_prob, advantage, ppo.clip)
    loss = -objective.mean() - ppo.entropy_weight * entropy(logits).mean()
    return loss, kl_divergence(old_logits, logits).mean()

  def epoch(_, carry):
    vector, opt_state, num_steps, _ = carry
    (_, kl), grads = jax.value_and_grad(loss_fn, has_aux=True)(vector)
    updates, new_opt_state = optimizer.update(grads, opt_state)
    new = (optax.apply_updates(vector, state.health.rate * updates), new_opt_state)
    near = kl <= ppo.kl_stop
    vector, opt_state = jax.tree.map(lambda a, b: jnp.where(near, a, b), new, (vector, opt_state))
    return vector, opt_state, num_steps + near, kl

  start = (vector, state.opt_state, jnp.zeros((), jnp.int32), jnp.zeros(()))
  vector, opt_state, num_steps, kl = jax.lax.fori_loop(0, ppo.epochs, epoch, start)
  return as_params(vector), opt_state, {"policy_steps": num_steps, "kl": kl}
