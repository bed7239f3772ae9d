"""The scorer of a problem's masks, which scores each mask only once."""

from collections.abc import Callable, Iterable, Iterator
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.criteria import Classical
from gatprune_jax.errors import InputError
from gatprune_jax.evaluation import Evaluator, Examples, Score
from gatprune_jax.search.problem import PruningProblem
from gatprune_jax.search.search_config import SearchConfig

PASSES_OF_STEP = 3  # forward passes that a gradient step costs for each of its images


def image_scores(config: SearchConfig, score: Score) -> jax.Array:
  """score - w min(loss, bound) of each example; the agent maximises the mean over examples.

  For classification this is correct + w max(log-likelihood, -bound), where correct is 1 if the
  label was predicted, else 0.
  """
  return score.score + config.likelihood_weight * jnp.maximum(-score.loss, -config.likelihood_bound)


def passes_of_score(config: SearchConfig, num_images: int) -> int:
  """Returns what it costs to score a mask, in forward passes of one image.

  A gradient step counts three forward passes for each of its images: one forward and, at twice its
  cost, one backward. The measurement of compensation, which is made once, is not counted.

  Args:
    config: settings of the search.
    num_images: number of images that the mask is scored on.
  """
  adapted = config.adaptation.steps * config.adaptation.batch_size
  return config.calibration_images + num_images + PASSES_OF_STEP * adapted


class SearchResult(NamedTuple):
  """Result of a search."""

  masks: np.ndarray  # [S, N] bool, all within every budget, best score first
  scores: np.ndarray  # [S] on reward and confirmation images together
  # Number of distinct masks scored on the reward images. Classical masks count; the masks of
  # updates that were not finite do not.
  evaluations: int
  seconds: float
  state: Any  # the agent's `SearchState`; None for other searches
  passes: int = 0  # what scoring cost, see `passes_of_score`


class Scorer:
  """Scores masks of a problem and keeps the scores, so that no mask is scored twice.

  Attributes:
    config: the settings.
    evaluator: scores masks on examples.
    reward: the examples on which every mask is scored.
    confirmation: the examples on which a mask must win as well to become the incumbent.
    known: {bytes of a mask: (score, the task's mean score) on the reward images}.
  """

  def __init__(
    self,
    problem: PruningProblem,
    config: SearchConfig | None = None,
    on_scored: Callable[[int], None] = lambda known: None,
  ):
    """Prepares the scoring of a problem's masks.

    Args:
      problem: the network to prune, with its constraints and data.
      config: settings; None means the defaults.
      on_scored: called with the number of known masks whenever a call has scored new ones.
    """
    self.config = config or SearchConfig()
    self.evaluator: Evaluator = problem.evaluator(self.config)
    self.reward: Examples = self.evaluator.place(problem.reward)
    self.confirmation: Examples = self.evaluator.place(problem.confirmation)
    self.known: dict[bytes, tuple[float, float]] = {}
    self._on_scored = on_scored
    # Each mask is counted once, although `ranked` asks again and again.
    feasible = problem.constraints.feasible
    self._feasible = functools.cache(lambda mask: feasible(np.frombuffer(mask, bool)))

  def __call__(self, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores `[C]` and the task's mean scores `[C]` of masks `[C, N]` on reward images."""
    new = {mask.tobytes(): mask for mask in masks if mask.tobytes() not in self.known}
    if new:
      self.remember(new.values(), *self.on_reward(np.stack(list(new.values()))))
      self._on_scored(len(self.known))
    return tuple(np.array([self.known[mask.tobytes()] for mask in masks]).T)

  def remember(
    self, masks: Iterable[np.ndarray], scores: np.ndarray, accuracies: np.ndarray
  ) -> None:
    """Adds masks that were scored elsewhere.

    Args:
      masks: C masks, bool `[N]` each.
      scores: `[C]` on the reward images.
      accuracies: the task's mean scores on the reward images, `[C]`.
    """
    for mask, score, accuracy in zip(masks, scores, accuracies, strict=True):
      score = float(score) if np.isfinite(score) else -np.inf  # so that the mask is never chosen
      self.known[mask.tobytes()] = (score, float(accuracy))

  def passes(self, on_reward: int, on_confirmation: int) -> int:
    """Returns what it costs to score so many masks on both kinds of images.

    See `passes_of_score`.
    """
    kinds = (on_reward, self.reward), (on_confirmation, self.confirmation)
    return sum(num * passes_of_score(self.config, examples.num) for num, examples in kinds)

  def on_reward(self, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Does what a call does, for masks that are all scored anew and not remembered."""
    score = self.evaluator.scores(masks, self.reward)
    return np.asarray(image_scores(self.config, score).mean(-1)), score.score.mean(-1)

  def on_confirmation(self, masks: np.ndarray) -> np.ndarray:
    """Returns the scores `[C, a]` of masks `[C, N]` on each confirmation image."""
    score = self.evaluator.scores(masks, self.confirmation)
    return np.asarray(image_scores(self.config, score))

  def ranked(self) -> Iterator[np.ndarray]:
    """Yields the known masks, bool `[N]`, that are feasible by exact count, best score first."""
    order = sorted(self.known, key=lambda mask: -self.known[mask][0])
    return (np.frombuffer(mask, bool) for mask in filter(self._feasible, order))

  def best(self, num: int) -> np.ndarray:
    """Returns the first masks of `ranked`, at most `num` of them, `[C, N]`."""
    return np.stack(list(itertools.islice(self.ranked(), num)))

  def shortlist(self, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the best of the masks, as many as configured, and their scores on both splits."""
    share = self.confirmation.num / (self.confirmation.num + self.reward.num)
    scores = (1 - share) * self(masks)[0] + share * self.on_confirmation(masks).mean(-1)
    order = np.argsort(-scores, kind="stable")[: self.config.shortlist]
    return masks[order], scores[order]

  def result(self, seconds: float) -> SearchResult:
    """Returns the result of a search without a state, whose masks this scorer has scored.

    Args:
      seconds: duration of the search.
    """
    elites = self.best(self.config.elites)
    masks, scores = self.shortlist(elites)
    passes = self.passes(len(self.known), len(elites))
    return SearchResult(masks, scores, len(self.known), seconds, None, passes)


def best_classical(problem: PruningProblem, scorer: Scorer) -> Classical:
  """Scores the masks of all classical pruners and returns the pruner with the best mask.

  Raises:
    InputError: if no score is finite.
  """
  scores, _ = scorer(np.stack([pruner.mask for pruner in problem.pruners]))
  if not np.isfinite(scores).any():
    raise InputError(
      f"the network's outputs under all {len(scores)} classical masks are NaN or infinite on the "
      "reward images: look for extreme values in the images and in the weights"
    )
  return problem.pruners[int(scores.argmax())]
