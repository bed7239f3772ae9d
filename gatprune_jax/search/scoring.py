"""The task of a search, and the scoring of its masks."""

from collections.abc import Callable, Sequence
import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax import compilation, mesh
from gatprune_jax.channels import Constraints
from gatprune_jax.criteria import Classical
from gatprune_jax.data import Split, cut
from gatprune_jax.errors import InputError
from gatprune_jax.evaluation import (
  Lesson,
  Score,
  TrainFunction,
  equal_blocks,
  first_in_chunks,
  largest_activation,
  make_lesson,
  masks_at_once,
  running_momentum,
  score_mask,
)
from gatprune_jax.search.config import SearchConfig


class Task(NamedTuple):
  """What is to be pruned, on which data, to which budgets."""

  constraints: Constraints  # the graph of its channels, budgets and floors
  eval_fn: Callable[[Any, jax.Array], jax.Array]  # (variables, x) -> logits
  train_fn: TrainFunction  # (variables, x) -> (logits, updated collections)
  variables: Any  # the trained weights; not changed
  train: Split  # training images, for the batch-norm statistics and steps before scoring
  reward: Split  # images that the weights were not trained on; every mask is scored on them
  arena: Split  # more such images, on which a new incumbent must win; see `hold_out_arena`
  pruners: Sequence[Classical]  # classical masks within the budgets, at least one
  saliency: dict[str, np.ndarray]  # {criterion: scores [N]}, the agent's features


def hold_out_arena(config: SearchConfig, reward: Split, seed: int) -> tuple[Split, Split]:
  """Cuts the reward split into the images that score masks, and the arena; see `cut`.

  Raises:
    InputError: where there would be no image that scores masks, or less than two in the arena.
  """
  arena, scored = cut(reward, round(config.arena_share * len(reward.y)), seed)
  if len(arena.y) < 2:  # has no standard error
    raise InputError(
      f"arena_share {config.arena_share} of {len(reward.y)} reward images is an arena of one: "
      "make it so large that there are two at least, or give more reward images"
    )
  return scored, arena


class Images(NamedTuple):
  """What masks are scored on."""

  variables: Any  # the dense weights
  momentum: Any  # of the running statistics, see `running_momentum`
  lesson: Lesson  # gradient steps before scoring
  calibration: jax.Array  # [k, b, ...] batches of training images
  reward_x: jax.Array  # [n, ...]
  reward_y: jax.Array  # [n]
  arena_x: jax.Array  # [a, ...] held out from the reward split
  arena_y: jax.Array  # [a]


# (images, mask [N], x, y) -> Score
ScoreFn = Callable[[Images, jax.Array, jax.Array, jax.Array], Score]


def image_scores(config: SearchConfig, score: Score) -> jax.Array:
  """correct + w max(log-likelihood, -bound) of each image: what the agent maximises."""
  bounded = jnp.maximum(score.log_likelihood, -config.likelihood_bound)
  return score.correct + config.likelihood_weight * bounded


class SearchResult(NamedTuple):
  """What a search hands back."""

  masks: np.ndarray  # [S, N] bool, all within every budget, best score first
  scores: np.ndarray  # [S] on reward and arena images together
  # Distinct masks scored on the reward images, classical ones included; not those of updates that
  # were not finite.
  evaluations: int
  seconds: float
  state: Any  # the agent's `SearchState`; None for other searches


class Scorer:
  """Scores masks of a task, each once.

  Attributes:
    config: the settings, with the number of masks scored at once chosen.
    images: what masks are scored on.
    score_fn: scores one mask.
    known: {bytes of a mask: (score, accuracy) on the reward images}.
  """

  def __init__(self, task: Task, config: SearchConfig):
    calibration = jnp.asarray(task.train.x[: config.calibration_images])
    images = Images(
      task.variables,
      running_momentum(task.train_fn, task.variables, jnp.asarray(task.train.x[:64])),
      make_lesson(config.adaptation, task.train),
      equal_blocks(calibration, config.calibration_batch),
      jnp.asarray(task.reward.x),
      jnp.asarray(task.reward.y),
      jnp.asarray(task.arena.x),
      jnp.asarray(task.arena.y),
    )
    self.images = mesh.replicate(images)

    def score_fn(images, mask, x, y):
      return score_mask(
        task.constraints.graph, task.eval_fn, task.train_fn, images.momentum, images.variables,
        mask, images.calibration, x, y, images.lesson,
      )  # fmt: skip

    self.score_fn: ScoreFn = score_fn
    self.known: dict[bytes, tuple[float, float]] = {}
    chunk = config.chunk or chosen_chunk(config, task)
    self.config = dataclasses.replace(config, chunk=chunk)
    self._constraints = task.constraints
    score_masks = jax.vmap(score_fn, (None, 0, None, None))
    share = mesh.over_devices(lambda masks, images, x, y: score_masks(images, masks, x, y))
    at_once = chunk * mesh.num_devices()
    self._call_size = max(config.samples, at_once)

    def score_first(masks, count, *same):
      return first_in_chunks(lambda some: share(some, *same), masks, count, at_once)

    self._score_first = jit_scoring(config, score_first)

  def __call__(self, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and accuracies `[C]` of masks `[C, N]` on the reward images."""
    new = {mask.tobytes(): mask for mask in masks if mask.tobytes() not in self.known}
    if new:
      score = self._score(np.stack(list(new.values())), self.images.reward_x, self.images.reward_y)
      scores = image_scores(self.config, score).mean(-1)
      self.remember(new.values(), np.asarray(scores), score.correct.mean(-1))
    return tuple(np.array([self.known[mask.tobytes()] for mask in masks]).T)

  def remember(self, masks, scores: np.ndarray, accuracies: np.ndarray) -> None:
    """Takes in masks `[C, N]` that were scored elsewhere, with scores and accuracies `[C]`."""
    for mask, score, accuracy in zip(masks, scores, accuracies, strict=True):
      score = float(score) if np.isfinite(score) else -np.inf  # never chosen
      self.known[mask.tobytes()] = (score, float(accuracy))

  def on_arena(self, masks: np.ndarray) -> np.ndarray:
    """Scores `[C, a]` of masks `[C, N]` on each arena image."""
    score = self._score(masks, self.images.arena_x, self.images.arena_y)
    return np.asarray(image_scores(self.config, score))

  def best(self, num: int) -> np.ndarray:
    """At most `num` of the masks known, feasible by exact count, best score first `[C, N]`."""
    order = sorted(self.known, key=lambda mask: -self.known[mask][0])
    masks = (np.frombuffer(mask, bool) for mask in order)
    return np.stack(list(itertools.islice(filter(self._constraints.feasible, masks), num)))

  def shortlist(self, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The configured number of best masks, and their scores on reward and arena together."""
    share = len(self.images.arena_y) / (len(self.images.arena_y) + len(self.images.reward_y))
    scores = (1 - share) * self(masks)[0] + share * self.on_arena(masks).mean(-1)
    order = np.argsort(-scores, kind="stable")[: self.config.shortlist]
    return masks[order], scores[order]

  def _score(self, masks: np.ndarray, x: jax.Array, y: jax.Array) -> Score:
    """In calls of one size, so that one is compiled; the last is filled up."""
    size, parts = self._call_size, []
    for start in range(0, len(masks), size):
      some = masks[start : start + size]
      filled = some[np.arange(size) % len(some)]
      parts.append(self._score_first(filled, np.int32(len(some)), self.images, x, y))
    return jax.tree.map(lambda *rows: np.concatenate(rows)[: len(masks)], *parts)


def jit_scoring(config: SearchConfig, fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
  """`compilation.jit` of what scores masks, on all devices, with options of `jax.jit`."""
  shared = not config.adaptation.steps  # else most of it are gradient steps
  return compilation.jit(fn, shared=shared, out_shardings=mesh.everywhere(), **options)


def chosen_chunk(config: SearchConfig, task: Task) -> int:
  """How many masks of the task a device scores at once, at most its share of the samples."""
  bytes_each = largest_activation(task.eval_fn, task.variables, task.reward.x)
  own_weights = config.adaptation.steps > 0
  return min(
    mesh.share(config.samples), masks_at_once(bytes_each, own_weights, jax.default_backend())
  )


def best_classical(task: Task, scorer: Scorer) -> Classical:
  """The classical pruner whose mask scores best; scores all of them.

  Raises:
    InputError: where no score is finite.
  """
  scores, _ = scorer(np.stack([pruner.mask for pruner in task.pruners]))
  if not np.isfinite(scores).any():
    raise InputError(
      f"the network's outputs under all {len(scores)} classical masks are NaN or infinite on the "
      "reward images: look for extreme values in the images and in the weights"
    )
  return task.pruners[int(scores.argmax())]
