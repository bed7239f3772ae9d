"""The search: prepares the problem, runs the updates, returns a shortlist of feasible masks."""

from collections.abc import Callable, Sequence
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.agent import Policy, observe, rank_among_all, with_embedding
from gatprune_jax.channels import Budgets, ChannelGraph
from gatprune_jax.criteria import Classical
from gatprune_jax.data import Split, cut
from gatprune_jax.evaluation import TrainFunction, in_chunks, running_momentum, score_mask
from gatprune_jax.search.candidates import candidate_masks
from gatprune_jax.search.config import SearchConfig
from gatprune_jax.search.mdp import make_decisions, make_environment
from gatprune_jax.search.update import (
  Images,
  Incumbent,
  Problem,
  ScoreFn,
  SearchState,
  image_scores,
  init_state,
  update,
)


class Progress(NamedTuple):
  """What is known after an update."""

  update: int  # from 1
  metrics: dict[str, np.ndarray]


class SearchResult(NamedTuple):
  """What a search hands back."""

  masks: np.ndarray  # [S, N] bool, all within every budget, best score first
  scores: np.ndarray  # [S] on reward and arena images together
  evaluations: int  # masks scored, classical and final ones included
  seconds: float
  state: SearchState


def search(
  graph: ChannelGraph,
  eval_fn: Callable[[Any, jax.Array], jax.Array],
  train_fn: TrainFunction,
  variables: Any,
  train: Split,
  reward: Split,
  arena: Split,
  budgets: Budgets,
  floors: np.ndarray,
  pruners: Sequence[Classical],
  saliency: dict[str, np.ndarray],
  config: SearchConfig,
  seed: int,
  on_update: Callable[[Progress], None] = lambda progress: None,
) -> SearchResult:
  """Searches for the masks of highest score within the budgets.

  The agent starts from the best classical pruner: its order of channels sets the first logits,
  shifted so that the expected costs are at the budgets.

  Args:
    graph: the network's channels.
    eval_fn: `(variables, x) -> logits`.
    train_fn: `(variables, x) -> (logits, updated collections)`.
    variables: the trained weights; not changed.
    train: training images, for the batch-norm statistics.
    reward: images that the weights were not trained on; every mask is scored on them.
    arena: more such images, on which a new incumbent must win too; see `hold_out_arena`.
    budgets: the constraints.
    floors: fewest channels of each group.
    pruners: classical masks within the budgets, at least one.
    saliency: {criterion: scores `[N]`}, the agent's features.
    config: settings.
    seed: of everything random.
    on_update: called after each update.

  Returns:
    The shortlist; every mask satisfies every budget.
  """
  start = time.monotonic()
  momentum = running_momentum(train_fn, variables, jnp.asarray(train.x[:64]))
  score_fn = functools.partial(score_mask, graph, eval_fn, train_fn, momentum)
  images = Images(
    variables,
    jnp.asarray(train.x[: config.calibration_images]),
    jnp.asarray(reward.x),
    jnp.asarray(reward.y),
    jnp.asarray(arena.x),
    jnp.asarray(arena.y),
  )
  score_all = make_scorer(config, score_fn)

  classical = np.stack([pruner.mask for pruner in pruners])
  classical_scores, classical_arena = score_all(images, jnp.asarray(classical))
  best = int(classical_scores.argmax())

  observation = observe(graph, variables, saliency, budgets)
  environment = make_environment(
    graph, make_decisions(graph, config.schedule), budgets, floors, -pruners[best].order
  )
  policy_key, sample_key = jax.random.split(jax.random.key(seed))
  problem = Problem(environment, observation, images, sample_key)
  problem = jax.device_put(problem, jax.devices()[0])
  policy = Policy(config.policy, len(graph.groups))
  params = _init_policy(policy, problem, policy_key, config, -pruners[best].order)
  incumbent = Incumbent(jnp.asarray(classical[best]), classical_scores[best], classical_arena[best])
  state = init_state(config, len(budgets.names), params, incumbent, classical_scores)
  # Committed like every later state, and no buffer shared with the problem: the update compiles
  # once, and donates its state.
  state = jax.device_put(jax.tree.map(jnp.array, state), jax.devices()[0])

  step = compile_update(config, policy, score_fn)
  for index in range(config.updates):
    state, metrics = step(state, problem)
    on_update(Progress(index + 1, jax.device_get(metrics)))

  masks = candidate_masks(graph, budgets, floors, policy, state, problem)
  on_reward, on_arena = score_all(images, jnp.asarray(masks))
  share = len(arena.y) / (len(arena.y) + len(reward.y))
  scores = np.asarray((1 - share) * on_reward + share * on_arena.mean(-1))
  order = np.argsort(-scores, kind="stable")[: config.shortlist]
  return SearchResult(
    masks=masks[order],
    scores=scores[order],
    evaluations=len(classical) + config.updates * config.samples + len(masks),
    seconds=time.monotonic() - start,
    state=state,
  )


def hold_out_arena(config: SearchConfig, reward: Split, seed: int) -> tuple[Split, Split]:
  """Cuts the reward split into the images that score masks, and the arena.

  Raises:
    InputError: where one of them would have fewer images than there are classes.
  """
  arena, scored = cut(reward, round(config.arena_share * len(reward.y)), seed)
  return scored, arena


def compile_update(config: SearchConfig, policy: Policy, score_fn: ScoreFn) -> Callable:
  """`update` as one compiled call of (state, problem); the state's memory is re-used."""
  return jax.jit(functools.partial(update, config, policy, score_fn), donate_argnums=0)


def make_scorer(config: SearchConfig, score_fn: ScoreFn) -> Callable:
  """A compiled (images, masks `[C, N]`) -> (mean reward scores `[C]`, arena scores `[C, a]`)."""

  @jax.jit
  def score_all(images, masks):
    def one(mask):
      score = lambda x, y: image_scores(
        config, score_fn(images.variables, mask, images.calibration, x, y)
      )
      return score(images.reward_x, images.reward_y).mean(), score(images.arena_x, images.arena_y)

    return in_chunks(one, masks, config.chunk)

  return score_all


def _init_policy(
  policy: Policy, problem: Problem, key: jax.Array, config: SearchConfig, priority: np.ndarray
) -> Any:
  """First parameters: logits `warm_start * rank + shift`, expected costs at the budgets."""
  env = problem.environment
  num_channels = env.group_of.shape[0]
  dynamic = jnp.zeros((num_channels, 2 + len(env.budgets.limits)))
  params = jax.jit(policy.init)(key, problem.observation, dynamic)
  ranks = config.warm_start * jnp.asarray(rank_among_all(priority), jnp.float32)
  # Costs are products over distinct channels nearly everywhere, so that the cost of the
  # probabilities is the expected cost; it grows with the shift.
  over = jax.jit(lambda shift: env.budgets.violations(jax.nn.sigmoid(ranks + shift)).max())
  low, high = -20.0, 20.0
  for _ in range(40):
    middle = (low + high) / 2
    low, high = (low, middle) if over(middle) > 0 else (middle, high)
  return with_embedding(params, ranks + low)
