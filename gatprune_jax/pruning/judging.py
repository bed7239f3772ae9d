"""Judges the masks that all methods propose in the same way.

Every mask is scored before and after the same fine-tuning. The select split chooses one mask for
each method, and the test split only reports.
"""

from collections.abc import Sequence
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
  first: int  # the mask that the method itself ranks first
  # The mask with the highest score on the select split after fine-tuning; `first` without it.
  chosen: int


class Judgement(NamedTuple):
  """Mean scores of the masks of all methods, and the masks that were chosen."""

  masks: np.ndarray  # [C, N] bool
  select_before: np.ndarray  # [C] with the dense weights and recalibrated batch norm
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
    config: settings of the search. Batch-norm statistics are recalibrated as in the search, and
      `config.allow_empty` says whether groups that have a bypass may be empty.
    recipe: settings of the fine-tuning; None judges the masks without fine-tuning.
    seed: seed of the fine-tuning.
    side_by_side: see `finetune`.
    logger: see `finetune`.
    phase: see `finetune`.
  """
  masks = np.concatenate([method.masks for method in proposals])
  before, finetuned = scores_before(problem, masks, config), None
  if recipe is not None:
    finetuned = finetune(
      problem, masks, recipe, seed=seed, side_by_side=side_by_side,
      allow_empty=config.allow_empty, logger=logger, phase=phase,
    )  # fmt: skip
  after = before if finetuned is None else finetuned.scores
  select_before, select_after = before(data.select), after(data.select)
  choices, first = [], 0
  for method in proposals:
    last = first + len(method.masks)
    chosen = first if recipe is None else first + int(select_after[first:last].argmax())
    choices.append(Choice(method, first, chosen))
    first = last
  test_before, test_after = before(data.test), after(data.test)
  return Judgement(masks, select_before, select_after, test_before, test_after, choices, finetuned)
