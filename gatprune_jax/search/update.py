"""One update of the agent, a single compiled call: sample, score, price, learn, remember."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from gatprune_jax.agent import (
  Multipliers,
  Observation,
  PastScores,
  Policy,
  clipped_objective,
  compete,
  dynamic_features,
  entropy,
  init_multipliers,
  init_past,
  kl_divergence,
  leave_one_out_advantages,
  log_prob,
  remember,
  update_multipliers,
  utility,
)
from gatprune_jax.evaluation import Score, in_chunks
from gatprune_jax.search.config import SearchConfig
from gatprune_jax.search.mdp import Environment, LogitsFn, decision_logits, rollout, transition


class Images(NamedTuple):
  """What masks are scored on."""

  variables: Any  # the dense weights
  calibration: jax.Array  # [m, ...] training images
  reward_x: jax.Array  # [n, ...]
  reward_y: jax.Array  # [n]
  arena_x: jax.Array  # [a, ...] held out from the reward split
  arena_y: jax.Array  # [a]


# (images.variables, mask [N], calibration, x, y) -> Score
ScoreFn = Callable[[Any, jax.Array, jax.Array, jax.Array, jax.Array], Score]


class Problem(NamedTuple):
  """Everything an update reads and does not change; arrays only, an argument under jit."""

  environment: Environment
  observation: Observation
  images: Images
  key: jax.Array


@flax.struct.dataclass
class Elites:
  """The best feasible masks sampled so far."""

  masks: jax.Array  # [M, N] bool
  scores: jax.Array  # [M], -inf where empty


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
  elites: Elites
  incumbent: Incumbent


def image_scores(config: SearchConfig, score: Score) -> jax.Array:
  """correct + w max(log-likelihood, -bound) of each image: what the agent maximises."""
  bounded = jnp.maximum(score.log_likelihood, -config.likelihood_bound)
  return score.correct + config.likelihood_weight * bounded


def make_optimizer(config: SearchConfig) -> optax.GradientTransformation:
  """Adam, with a rate of its own for the per-channel embedding."""

  def kinds(params):
    name = lambda path, _: "embedding" if path[-1].key == "embedding" else "network"
    return jax.tree.map_with_path(name, params)

  rates = {
    "network": optax.adam(config.ppo.learning_rate),
    "embedding": optax.adam(config.ppo.embedding_learning_rate),
  }
  return optax.chain(
    optax.clip_by_global_norm(config.ppo.max_grad_norm), optax.partition(rates, kinds)
  )


def init_state(
  config: SearchConfig, num_constraints: int, params: Any, incumbent: Incumbent, past: jax.Array
) -> SearchState:
  """The state before the first update.

  Args:
    config: settings.
    num_constraints: K.
    params: the policy's variables.
    incumbent: the best classical mask.
    past: scores `[C]` of the classical masks, the first to compete against.
  """
  num_channels = incumbent.mask.shape[0]
  past = past[: config.past_scores]  # of more, the ring could not say which it keeps
  return SearchState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=make_optimizer(config).init(params),
    multipliers=init_multipliers(num_constraints),
    past=remember(init_past(config.past_scores), past, jnp.ones(len(past), bool)),
    elites=Elites(
      jnp.zeros((config.elites, num_channels), bool), jnp.full(config.elites, -jnp.inf, jnp.float32)
    ),
    incumbent=incumbent,
  )


def policy_logits(policy: Policy, params: Any, problem: Problem) -> LogitsFn:
  """The policy as a function of the state alone."""

  def logits_fn(mask, decided):
    slack = problem.environment.budgets.violations(mask)
    dynamic = dynamic_features(mask, decided, slack)
    return policy.apply(params, problem.observation, dynamic)

  return logits_fn


def update(
  config: SearchConfig, policy: Policy, score_fn: ScoreFn, state: SearchState, problem: Problem
) -> tuple[SearchState, dict[str, jax.Array]]:
  """Samples B masks from the policy, scores them, and improves policy and multipliers.

  The multipliers move before the policy. The whole update is one compiled call.

  Args:
    config: settings; static.
    policy: the network; static.
    score_fn: scores one mask; static.
    state: from the last update.
    problem: the network to prune and its data.

  Returns:
    The next state, and scalars (or `[K]`, per constraint) to log.
  """
  env, images = problem.environment, problem.images
  key = jax.random.fold_in(problem.key, state.step)
  bits, logits = rollout(env, policy_logits(policy, state.params, problem), config.samples, key)
  masks = jax.vmap(lambda b: transition(env, b))(bits)

  score = lambda mask, x, y: score_fn(images.variables, mask, images.calibration, x, y)
  scored = in_chunks(
    lambda mask: score(mask, images.reward_x, images.reward_y), masks, config.chunk
  )
  scores = image_scores(config, scored).mean(-1)  # [B]
  violation = jax.vmap(env.budgets.violations)(masks)  # [B, K]
  feasible = (violation <= 0).all(-1)

  multipliers = update_multipliers(config.dual, state.multipliers, violation.mean(0))
  reward = compete(config.self_competition, scores, state.past)
  advantage = leave_one_out_advantages(utility(reward, violation, multipliers.value))
  params, opt_state, learned = _improve(config, policy, state, problem, bits, logits, advantage)

  elites = merge_elites(state.elites, masks, jnp.where(feasible, scores, -jnp.inf))
  best = jnp.where(feasible, scores, -jnp.inf).argmax()
  arena = image_scores(config, score(masks[best], images.arena_x, images.arena_y))
  challenger = Incumbent(masks[best], jnp.where(feasible[best], scores[best], -jnp.inf), arena)
  accuracy = scored.correct.mean(-1)
  metrics = {
    "reward": reward.mean(),
    "score": scores.mean(),
    "accuracy": accuracy.mean(),
    "best_feasible_accuracy": jnp.where(feasible, accuracy, -jnp.inf).max(),
    "feasible_share": feasible.mean(),
    "cost": jax.vmap(env.budgets.ratios)(masks).mean(0),
    "multiplier": multipliers.value,
    "entropy": entropy(logits).mean(),
    **learned,
  }
  new_state = SearchState(
    step=state.step + 1,
    params=params,
    opt_state=opt_state,
    multipliers=multipliers,
    past=remember(state.past, scores, feasible),
    elites=elites,
    incumbent=challenge(state.incumbent, challenger),
  )
  return new_state, metrics


def challenge(incumbent: Incumbent, challenger: Incumbent) -> Incumbent:
  """The challenger where it wins on the reward split and, by a standard error, in the arena.

  The largest of many noisy scores is too high by construction; the arena's paired difference is
  on images that did not choose the challenger.
  """
  difference = challenger.arena - incumbent.arena
  standard_error = difference.std(ddof=1) / jnp.sqrt(difference.shape[0])
  wins = (challenger.score > incumbent.score) & (difference.mean() > standard_error)
  return jax.tree.map(lambda new, old: jnp.where(wins, new, old), challenger, incumbent)


def _improve(
  config: SearchConfig,
  policy: Policy,
  state: SearchState,
  problem: Problem,
  bits: jax.Array,
  old_logits: jax.Array,
  advantage: jax.Array,
) -> tuple[Any, Any, dict[str, jax.Array]]:
  """Epochs of PPO on one batch; stops changing once the mean KL per channel is too large."""
  ppo, optimizer = config.ppo, make_optimizer(config)
  old_log_prob = log_prob(old_logits, bits)

  def loss_fn(params):
    logits = decision_logits(problem.environment, policy_logits(policy, params, problem), bits)
    objective = clipped_objective(
      log_prob(logits, bits), old_log_prob, advantage[:, None], ppo.clip
    )
    loss = -objective.mean() - ppo.entropy_weight * entropy(logits).mean()
    return loss, kl_divergence(old_logits, logits).mean()

  def epoch(_, carry):
    params, opt_state, num_steps, _ = carry
    (_, kl), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    updates, new_opt_state = optimizer.update(grads, opt_state, params)
    new = (optax.apply_updates(params, updates), new_opt_state)
    near = kl <= ppo.kl_stop
    params, opt_state = jax.tree.map(lambda a, b: jnp.where(near, a, b), new, (params, opt_state))
    return params, opt_state, num_steps + near, kl

  start = (state.params, state.opt_state, jnp.zeros((), jnp.int32), jnp.zeros(()))
  params, opt_state, num_steps, kl = jax.lax.fori_loop(0, ppo.epochs, epoch, start)
  return params, opt_state, {"policy_steps": num_steps, "kl": kl}


def merge_elites(elites: Elites, masks: jax.Array, scores: jax.Array) -> Elites:
  """The best of old and new; a mask that is already there does not enter twice."""
  known = (masks[:, None] == elites.masks[None]).all(-1).any(-1)
  scores = jnp.concatenate([elites.scores, jnp.where(known, -jnp.inf, scores)])
  top, index = jax.lax.top_k(scores, elites.scores.shape[0])
  return Elites(jnp.concatenate([elites.masks, masks])[index], top)
