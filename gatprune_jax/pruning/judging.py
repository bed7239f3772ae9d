"""What methods propose, judged alike: chosen by the select split, reported on the test split."""

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
  """A method, and two of the masks that it proposes, as indices of all masks."""

  proposal: Proposal
  first: int  # the one that the method itself likes best
  chosen: int  # the one of highest score on the select split after fine-tuning; else the first


class Judgement(NamedTuple):
  """Mean scores of all masks, and which of them stand for their methods."""

  masks: np.ndarray  # [C, N] bool
  select_before: np.ndarray  # [C] weights untouched, batch norm recalibrated
  select_after: np.ndarray  # [C] after fine-tuning; without it as before
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
  """Fine-tunes all masks with one recipe; the select split chooses among those of a method.

  Args:
    problem: whose masks they are.
    data: its select and test parts.
    proposals: what every method proposes.
    config: statistics are made as in the search.
    recipe: of the fine-tuning; None: the masks are judged as they are.
    seed: of the fine-tuning.
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
