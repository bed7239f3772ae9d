"""The searches: prepare the problem, search, return a shortlist of feasible masks."""

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
from gatprune_jax.errors import InputError
from gatprune_jax.evaluation import TrainFunction, in_chunks, running_momentum, score_mask
from gatprune_jax.search.candidates import candidate_masks
from gatprune_jax.search.config import SearchConfig
from gatprune_jax.search.equal_budget import Terms, search_without_learning
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


class Task(NamedTuple):
  """What is to be pruned, on which data, to which budgets."""

  graph: ChannelGraph
  eval_fn: Callable[[Any, jax.Array], jax.Array]  # (variables, x) -> logits
  train_fn: TrainFunction  # (variables, x) -> (logits, updated collections)
  variables: Any  # the trained weights; not changed
  train: Split  # training images, for the batch-norm statistics
  reward: Split  # images that the weights were not trained on; every mask is scored on them
  arena: Split  # more such images, on which a new incumbent must win; see `hold_out_arena`
  budgets: Budgets
  floors: np.ndarray  # [groups] fewest channels
  pruners: Sequence[Classical]  # classical masks within the budgets, at least one
  saliency: dict[str, np.ndarray]  # {criterion: scores [N]}, the agent's features


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
  state: SearchState | None  # of the agent


class Scorer:
  """Scores masks of a task, and counts them."""

  def __init__(self, task: Task, config: SearchConfig):
    momentum = running_momentum(task.train_fn, task.variables, jnp.asarray(task.train.x[:64]))
    self.score_fn: ScoreFn = functools.partial(
      score_mask, task.graph, task.eval_fn, task.train_fn, momentum
    )
    self.images = Images(
      task.variables,
      jnp.asarray(task.train.x[: config.calibration_images]),
      jnp.asarray(task.reward.x),
      jnp.asarray(task.reward.y),
      jnp.asarray(task.arena.x),
      jnp.asarray(task.arena.y),
    )
    self.evaluations = 0
    self._score_all = make_scorer(config, self.score_fn)

  def __call__(self, masks: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Mean reward scores `[C]` and the arena images' scores `[C, a]` of masks `[C, N]`."""
    self.evaluations += len(masks)
    return self._score_all(self.images, jnp.asarray(masks))

  def shortlist(self, masks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The best `size` masks and their scores, on reward and arena images together."""
    on_reward, on_arena = self(masks)
    num_arena, num_reward = len(self.images.arena_y), len(self.images.reward_y)
    share = num_arena / (num_arena + num_reward)
    scores = np.asarray((1 - share) * on_reward + share * on_arena.mean(-1))
    order = np.argsort(-scores, kind="stable")[:size]
    return masks[order], scores[order]


def search(
  task: Task,
  config: SearchConfig,
  seed: int,
  on_update: Callable[[Progress], None] = lambda progress: None,
) -> SearchResult:
  """Searches for the masks of highest score within the budgets.

  The agent starts from the best classical pruner: its order of channels sets the first logits,
  shifted so that the expected costs are at the budgets.

  Args:
    task: what to prune.
    config: settings.
    seed: of everything random.
    on_update: called after each update.

  Returns:
    The shortlist; every mask satisfies every budget.
  """
  start = time.monotonic()
  scorer = Scorer(task, config)
  best, classical_scores, incumbent = _best_classical(task, scorer)

  graph, budgets, floors = task.graph, task.budgets, task.floors
  observation = observe(graph, task.variables, task.saliency, budgets)
  environment = make_environment(
    graph, make_decisions(graph, config.schedule), budgets, floors, -best.order
  )
  policy_key, sample_key = jax.random.split(jax.random.key(seed))
  problem = Problem(environment, observation, scorer.images, sample_key)
  problem = jax.device_put(problem, jax.devices()[0])
  policy = Policy(config.policy, len(graph.groups))
  params = _init_policy(policy, problem, policy_key, config, -best.order)
  state = init_state(config, len(budgets.names), params, incumbent, classical_scores)
  # Committed like every later state, and no buffer shared with the problem: the update compiles
  # once, and donates its state.
  state = jax.device_put(jax.tree.map(jnp.array, state), jax.devices()[0])

  step = compile_update(config, policy, scorer.score_fn)
  for index in range(config.updates):
    state, metrics = step(state, problem)
    on_update(Progress(index + 1, jax.device_get(metrics)))

  candidates = candidate_masks(graph, budgets, floors, policy, state, problem)
  masks, scores = scorer.shortlist(candidates, config.shortlist)
  evaluations = scorer.evaluations + config.updates * config.samples
  return SearchResult(masks, scores, evaluations, time.monotonic() - start, state)


def search_equal_budget(
  strategy: str, task: Task, config: SearchConfig, evaluations: int, seed: int
) -> SearchResult:
  """Searches without a learner, scoring exactly as many masks as an agent did.

  The classical masks and the re-scored finalists count too. Generations have the agent's number of
  samples, and a quarter as many parents.

  Args:
    strategy: see `STRATEGIES`.
    task: what to prune.
    config: the agent's settings.
    evaluations: the agent's `SearchResult.evaluations`.
    seed: of everything random.

  Raises:
    InputError: an unknown strategy, or too few evaluations, or distinct masks, for it.
  """
  start = time.monotonic()
  scorer = Scorer(task, config)
  best, _, _ = _best_classical(task, scorer)
  num_masks = evaluations - scorer.evaluations - config.elites
  if num_masks < config.elites:
    raise InputError(
      f"{evaluations} evaluations are too few: {scorer.evaluations} classical masks and "
      f"{config.elites} finalists leave {num_masks} to search with"
    )
  terms = Terms(task.graph, task.budgets, task.floors, best)
  found = search_without_learning(
    strategy, terms, lambda masks: scorer(masks)[0], num_masks, config.samples,
    max(1, config.samples // 4), seed,
  )  # fmt: skip
  masks, scores = scorer.shortlist(found.masks[: config.elites], config.shortlist)
  return SearchResult(masks, scores, evaluations, time.monotonic() - start, None)


def _best_classical(task: Task, scorer: Scorer) -> tuple[Classical, jax.Array, Incumbent]:
  """The best classical pruner, the scores `[C]` of all of them, and its mask as incumbent."""
  masks = np.stack([pruner.mask for pruner in task.pruners])
  scores, arena = scorer(masks)
  best = int(scores.argmax())
  incumbent = Incumbent(jnp.asarray(masks[best]), scores[best], arena[best])
  return task.pruners[best], scores, incumbent


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
