"""Scores networks under masks before fine-tuning, and fine-tunes all of them with one recipe."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.data import Split
from gatprune_jax.evaluation import (
  Momentum,
  candidate_scores,
  candidate_statistics,
  mean_score,
  recalibrate,
  with_statistics,
)
from gatprune_jax.networks import Network, compact_network, fast_network
from gatprune_jax.runs.logger import ProgressLogger
from gatprune_jax.runtime import compilation, mesh
from gatprune_jax.runtime.maps import equal_blocks, over_shares
from gatprune_jax.search import PruningProblem, SearchConfig
from gatprune_jax.training import Recipe, steps_per_epoch, train, train_candidates

_STATISTICS_IMAGES = 1024  # for the running statistics of fine-tuned networks

Scores = Callable[[Split], np.ndarray]  # split -> the task's mean score under every mask, [C]


class Finetuned(NamedTuple):
  """The networks of all masks after fine-tuning."""

  scores: Scores
  network: Callable[[int], Network]  # index of a mask -> the fine-tuned compact network


def scores_before(
  problem: PruningProblem, masks: np.ndarray, config: SearchConfig | None = None
) -> Scores:
  """Returns a function that scores masks on a split before any gradient step.

  The weights are the dense network's, compensated for each mask, and the batch-norm statistics of
  each mask are recalibrated on training examples.

  Args:
    problem: the network, task and training examples.
    masks: bool `[C, N]`.
    config: settings of the compensation and the statistics; None for the defaults.
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
  config: SearchConfig | None = None,
  *,
  seed: int = 0,
  side_by_side: bool = True,
  logger: ProgressLogger | None = None,
  phase: str = "finetune",
) -> Finetuned:
  """Trains the network under every mask on the same batches; the dense network is the teacher.

  After the last step the running statistics of batch norm are measured again, on training images
  without augmentation. Those that were collected on the way belong to earlier weights: where the
  momentum is 0.99 they lag by hundreds of steps, and where `recipe.average` is set the weights are
  averages, which no batch has seen (Izmailov et al. 2018, arXiv 1803.05407, section 3.2).

  Args:
    problem: the network, task and training examples.
    masks: bool `[C, N]`.
    recipe: settings of the training; None for the defaults.
    config: settings of the search. The networks start from weights that are compensated as in the
      search, and `config.allow_empty` says whether groups that have a bypass may be empty. None for
      the defaults.
    seed: seed of data order and augmentation.
    side_by_side: True trains all networks at one common shape, in a step that is compiled once.
      False trains compact networks one after the other; each is compiled for itself and computes
      only the channels that its mask keeps.
    logger: logs the training and saves its state; None does neither.
    phase: name of the training in the metrics and checkpoints.

  Raises:
    InputError, Diverged, Preempted: see `train`.
  """
  job = _Job(
    problem, masks, recipe or Recipe(), config or SearchConfig(),
    jax.random.fold_in(jax.random.key(seed), 1), logger or ProgressLogger(progress=False), phase,
  )  # fmt: skip
  return _side_by_side(job) if side_by_side else _in_turn(job)


class _Job(NamedTuple):
  """The arguments that both ways of fine-tuning share."""

  problem: PruningProblem
  masks: np.ndarray
  recipe: Recipe
  config: SearchConfig
  key: jax.Array  # PRNG key of data order and augmentation, the same for every mask
  logger: ProgressLogger
  phase: str

  def starts(self) -> Iterator[Any]:
    """Returns the dense variables from which the network under each mask starts."""
    evaluator = self.problem.evaluator(self.config)
    return map(evaluator.compensated, self.masks)

  def momentum(self) -> Momentum:
    """Returns the momentum of each running statistic, which is the same under every mask."""
    return mesh.to_host(self.problem.evaluator(self.config).weights.momentum)

  def statistics_batches(self) -> jax.Array:
    """Returns batches of training inputs `[k, b, ...]`, on one device of this process."""
    inputs = jnp.asarray(self.problem.train.x[:_STATISTICS_IMAGES])
    return equal_blocks(inputs, self.recipe.batch_size)


def _side_by_side(job: _Job) -> Finetuned:
  problem, masks = job.problem, job.masks
  network, graph, task = problem.network, problem.constraints.graph, problem.task
  title = f"fine-tune {len(masks)} networks, epoch"
  with job.logger.loop(job.phase, title, job.recipe.epochs) as loop:
    line_of = lines_of_epochs(job.recipe, problem.train)
    stacked = train_candidates(
      graph, network, task, jnp.asarray(masks), problem.train, job.recipe, job.key,
      lambda epoch, values, _: loop.record(epoch, values), network,
      loop.checkpointer(job.logger.every.steps, line_of), job.starts(),
    )  # fmt: skip
  momentum = job.momentum()
  statistics_of = lambda own, x: ((), candidate_statistics(graph, network, momentum, *own, x))
  measure = compilation.jit(over_shares(statistics_of, len(masks)), shared=True)
  _, statistics = measure(
    mesh.share_out((stacked, masks)), mesh.replicate(job.statistics_batches())
  )
  stacked = with_statistics(network, momentum, stacked, mesh.to_host(statistics))
  one_share = lambda own, x, y: ((), candidate_scores(graph, network, task, *own, x, y))
  after = compilation.jit(over_shares(one_share, len(masks)), shared=True)
  shared = mesh.share_out((stacked, masks))

  def scores(split: Split) -> np.ndarray:
    total = sum(after(shared, *piece)[1] * piece.num for piece in split.pieces())
    return np.asarray(total) / split.num

  def compact(index: int) -> Network:
    weights = jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), stacked)
    own = network.with_variables(weights)
    return compact_network(graph, own, masks[index], job.config.allow_empty)

  return Finetuned(scores, compact)


def _in_turn(job: _Job) -> Finetuned:
  problem, masks = job.problem, job.masks
  network, graph, task = problem.network, problem.constraints.graph, problem.task
  momentum, batches, networks = job.momentum(), job.statistics_batches(), []
  title = f"fine-tune {len(masks)} networks, network"
  with job.logger.loop(job.phase, title, len(masks)) as loop:
    for index, (mask, start) in enumerate(zip(masks, job.starts(), strict=True), start=1):
      own = network.with_variables(start)
      small = compact_network(graph, own, mask, job.config.allow_empty)
      name = f"{job.phase}/{index}"
      checkpointer = loop.checkpointer(job.logger.every.steps, lambda _, i=index: i - 1, name)
      history = []
      trained = train(
        small, task, problem.train, job.recipe, job.key,
        lambda epoch, values, _, log=history: log.append(values), network, checkpointer,
      )  # fmt: skip
      measure = compilation.jit(functools.partial(recalibrate, fast_network(small), momentum))
      networks.append(dataclasses.replace(small, variables=measure(trained, batches)))
      loop.record(index, history[-1])
  scores = lambda split: np.array([mean_score(n, task, n.variables, split) for n in networks])
  return Finetuned(scores, lambda index: networks[index])


def lines_of_epochs(recipe: Recipe, split: Split) -> Callable[[int], int]:
  """Returns the argument `line_of` of `Loop.checkpointer` for a loop with one log line per epoch.

  The function maps a number of steps done to the last log line that stays when the loop is resumed
  there. If an epoch ends with that step, the epoch's line does not stay, because the resumed loop
  logs it again.
  """
  per_epoch = steps_per_epoch(recipe, split)
  return lambda step: max(0, step - 1) // per_epoch
