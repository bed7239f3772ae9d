"""Networks under masks, as they are, and after the same fine-tuning for all of them."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.data import Split
from gatprune_jax.evaluation import candidate_scores, mean_score
from gatprune_jax.networks import Network, compact_network
from gatprune_jax.runs.logger import ProgressLogger
from gatprune_jax.runtime import compilation, mesh
from gatprune_jax.runtime.maps import over_shares
from gatprune_jax.search import PruningProblem, SearchConfig
from gatprune_jax.training import Recipe, steps_per_epoch, train, train_candidates

Scores = Callable[[Split], np.ndarray]  # split -> the task's mean score of every mask, [C]


class Finetuned(NamedTuple):
  """The network under every mask, after fine-tuning."""

  scores: Scores
  network: Callable[[int], Network]  # index of a mask -> the compact network, fine-tuned


def scores_before(
  problem: PruningProblem, masks: np.ndarray, config: SearchConfig | None = None
) -> Scores:
  """Mean scores of masks `[C, N]`, weights untouched, batch norm recalibrated on training examples.

  Args:
    problem: whose masks they are.
    masks: bool `[C, N]`.
    config: how many training examples are used; None: the defaults.
  """
  evaluator = problem.evaluator(config or SearchConfig())
  statistics = evaluator.statistics(masks)

  def of_split(split: Split) -> np.ndarray:
    scores = (
      evaluator.scores_with_statistics(masks, statistics, *piece) for piece in split.pieces()
    )
    return sum(score.score.sum(-1) for score in scores) / split.num

  return of_split


def finetune(
  problem: PruningProblem,
  masks: np.ndarray,
  recipe: Recipe | None = None,
  *,
  seed: int = 0,
  side_by_side: bool = True,
  allow_empty: bool = False,
  logger: ProgressLogger | None = None,
  phase: str = "finetune",
) -> Finetuned:
  """Trains the network under every mask on the same batches; the dense network is the teacher.

  Args:
    problem: whose masks they are.
    masks: bool `[C, N]`.
    recipe: how; None: the defaults.
    seed: of data order and augmentation.
    side_by_side: True trains all networks at one shape in one step, compiled once; False trains
      compact networks one after the other: each is compiled, and computes only what it keeps.
    allow_empty: whether groups that have a bypass may be empty; see `compact`.
    logger: where the training is told and saved; None: nowhere.
    phase: its name there.

  Raises:
    InputError, Diverged, Preempted: as `train`.
  """
  job = _Job(
    problem, masks, recipe or Recipe(), jax.random.fold_in(jax.random.key(seed), 1),
    allow_empty, logger or ProgressLogger(progress=False), phase,
  )  # fmt: skip
  return _side_by_side(job) if side_by_side else _in_turn(job)


class _Job(NamedTuple):
  """What both ways of fine-tuning are told."""

  problem: PruningProblem
  masks: np.ndarray
  recipe: Recipe
  key: jax.Array  # the same for every mask
  allow_empty: bool
  logger: ProgressLogger
  phase: str

  def teacher(self, x: jax.Array) -> Any:
    """The dense network's outputs."""
    return self.problem.network.eval_fn(self.problem.network.variables, x)


def _side_by_side(job: _Job) -> Finetuned:
  problem, masks = job.problem, job.masks
  network, graph, task = problem.network, problem.constraints.graph, problem.task
  title = f"fine-tune {len(masks)} networks, epoch"
  with job.logger.loop(job.phase, title, job.recipe.epochs) as loop:
    line_of = lines_of_epochs(job.recipe, problem.train)
    stacked = train_candidates(
      graph, network, task, jnp.asarray(masks), problem.train, job.recipe, job.key,
      lambda epoch, values, _: loop.record(epoch, values), job.teacher,
      loop.checkpointer(job.logger.every.steps, line_of),
    )  # fmt: skip
  one_share = lambda own, x, y: ((), candidate_scores(graph, network, task, *own, x, y))
  after = compilation.jit(over_shares(one_share, len(masks)), shared=True)
  shared = mesh.share_out((stacked, masks))

  def scores(split: Split) -> np.ndarray:
    total = sum(after(shared, *piece)[1] * piece.num for piece in split.pieces())
    return np.asarray(total) / split.num

  def compact(index: int) -> Network:
    weights = jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), stacked)
    own = network.with_variables(weights)
    return compact_network(graph, own, masks[index], job.allow_empty)

  return Finetuned(scores, compact)


def _in_turn(job: _Job) -> Finetuned:
  problem, masks = job.problem, job.masks
  network, graph, task = problem.network, problem.constraints.graph, problem.task
  networks = []
  title = f"fine-tune {len(masks)} networks, network"
  with job.logger.loop(job.phase, title, len(masks)) as loop:
    for index, mask in enumerate(masks, start=1):
      small = compact_network(graph, network, mask, job.allow_empty)
      name = f"{job.phase}/{index}"
      checkpointer = loop.checkpointer(job.logger.every.steps, lambda _, i=index: i - 1, name)
      history = []
      trained = train(
        small, task, problem.train, job.recipe, job.key,
        lambda epoch, values, _, log=history: log.append(values), job.teacher, checkpointer,
      )  # fmt: skip
      networks.append(dataclasses.replace(small, variables=trained))
      loop.record(index, history[-1])
  scores = lambda split: np.array([mean_score(n, task, n.variables, split) for n in networks])
  return Finetuned(scores, lambda index: networks[index])


def lines_of_epochs(recipe: Recipe, split: Split) -> Callable[[int], int]:
  """For `Loop.checkpointer`: the epoch that a step ends is told again by the loop that goes on."""
  per_epoch = steps_per_epoch(recipe, split)
  return lambda step: max(0, step - 1) // per_epoch
