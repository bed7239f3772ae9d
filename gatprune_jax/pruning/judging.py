"""Judges the masks that all methods propose in the same way.

Every mask is scored before and after the same fine-tuning. A method that proposes many masks has
them fine-tuned for a part of the epochs first, and only the best go on: this is one round of
successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943). The select split chooses one
mask for each method, and the test split only reports.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from gatprune_jax.data import Dataset
from gatprune_jax.pruning.finetuning import Finetuned, finetune, scores_before
from gatprune_jax.pruning.proposals import Proposal
from gatprune_jax.runs.logger import ProgressLogger
from gatprune_jax.search import PruningProblem, SearchConfig
from gatprune_jax.training import Recipe


class Choice(NamedTuple):
  """A method, and two of the masks that it proposes, as indices into the masks of all methods."""

  proposal: Proposal
  first: int  # the mask ranked first by the method itself or, after a heat, by the heat
  # The mask with the highest score on the select split after fine-tuning; `first` without it.
  chosen: int
  epochs: int  # epochs of fine-tuning that all masks of the method took


class Judgement(NamedTuple):
  """Mean scores of the masks of all methods, and the masks that were chosen."""

  masks: np.ndarray  # [C, N] bool
  select_before: np.ndarray  # [C] before any gradient step, see `scores_before`
  select_after: np.ndarray  # [C] after fine-tuning; equal to select_before without fine-tuning
  test_before: np.ndarray  # [C]
  test_after: np.ndarray  # [C]
  choices: list[Choice]
  finetuned: Finetuned | None


def judge(
  problem: PruningProblem,
  data: Dataset,
  proposals: Sequence[Proposal],
  config: SearchConfig,
  recipe: Recipe | None,
  *,
  seed: int,
  side_by_side: bool = True,
  logger: ProgressLogger | None = None,
  phase: str = "finetune",
) -> Judgement:
  """Fine-tunes all masks with one recipe; the select split then chooses one mask of each method.

  Args:
    problem: the network, task and training examples.
    data: the data set, of which the select and test parts are used.
    proposals: the masks that every method proposes.
    config: settings of the search. Weights are compensated and batch-norm statistics recalibrated
      as in the search. `config.finalists` says how many masks of each method are fine-tuned for all
      epochs, and `config.allow_empty` whether groups that have a bypass may be empty.
    recipe: settings of the fine-tuning; None judges the masks without fine-tuning.
    seed: seed of the fine-tuning.
    side_by_side: see `finetune`.
    logger: see `finetune`.
    phase: see `finetune`.
  """
  train = functools.partial(
    finetune, problem, config=config, seed=seed, side_by_side=side_by_side, logger=logger
  )
  finalists, epochs = list(proposals), [0 for _ in proposals]
  if recipe is not None:
    short = shortened(recipe)
    heat = lambda masks: train(masks, short, phase=f"{phase}/heat").scores(data.select)
    if short.epochs < recipe.epochs:
      finalists = hold_heat(proposals, config.finalists, heat)
    for index, (method, left) in enumerate(zip(proposals, finalists, strict=True)):
      in_heat = len(method.masks) if method is not left else 0
      epochs[index] = in_heat * short.epochs + len(left.masks) * recipe.epochs
  masks = np.concatenate([method.masks for method in finalists])
  before, finetuned = scores_before(problem, masks, config), None
  if recipe is not None:
    finetuned = train(masks, recipe, phase=phase)
  after = before if finetuned is None else finetuned.scores
  select_before, select_after = before(data.select), after(data.select)
  choices, first = [], 0
  for method, spent in zip(finalists, epochs, strict=True):
    last = first + len(method.masks)
    chosen = first if recipe is None else first + int(select_after[first:last].argmax())
    choices.append(Choice(method, first, chosen, spent))
    first = last
  test_before, test_after = before(data.test), after(data.test)
  return Judgement(masks, select_before, select_after, test_before, test_after, choices, finetuned)


def shortened(recipe: Recipe) -> Recipe:
  """Returns the recipe of a heat: a quarter of the given epochs, at least one."""
  epochs = max(1, recipe.epochs // 4)
  warmup = recipe.warmup_epochs * epochs / recipe.epochs
  return dataclasses.replace(recipe, epochs=epochs, warmup_epochs=warmup)


def hold_heat(
  proposals: Sequence[Proposal], finalists: int, heat: Callable[[np.ndarray], np.ndarray]
) -> list[Proposal]:
  """Keeps the masks that do best in a heat, for every method that proposes more than enough.

  Args:
    proposals: the masks that every method proposes.
    finalists: number of masks to keep.
    heat: masks `[C, N]` -> scores `[C]` after a short fine-tuning.

  Returns:
    The proposals. Those that were in the heat have their best masks, best first; the others are the
    given objects.
  """
  contested = [method for method in proposals if len(method.masks) > finalists]
  if not contested:
    return list(proposals)
  scores = heat(np.concatenate([method.masks for method in contested]))
  scores = iter(np.split(scores, np.cumsum([len(method.masks) for method in contested])[:-1]))

  def best_of(method: Proposal) -> Proposal:
    if len(method.masks) <= finalists:
      return method
    order = np.argsort(-next(scores), kind="stable")[:finalists]
    return method._replace(masks=method.masks[order])

  return [best_of(method) for method in proposals]
