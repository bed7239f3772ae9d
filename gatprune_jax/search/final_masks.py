"""Candidate masks from a trained policy, all within every budget by an exact count."""

from collections.abc import Sequence

import numpy as np

from gatprune_jax.channels import Constraints, ranks
from gatprune_jax.criteria import allocate


def candidate_masks(
  constraints: Constraints, logits: np.ndarray, masks: Sequence[np.ndarray]
) -> np.ndarray:
  """Returns distinct feasible masks, bool `[C, N]`, at least one.

  The multipliers bring the policy's *mean* cost to the budget, so about half of its samples exceed
  the budget, and the other half leave some of it unused. The first candidate keeps the channels of
  highest logit, as many as the budgets allow. The other candidates are the given masks, each after
  adding the removed channels of highest logit that still fit the budgets.

  Args:
    constraints: the budgets and floors.
    logits: the policy's logits, `[N]`.
    masks: feasible masks, bool `[N]` each.
  """
  threshold = allocate(constraints, ranks(logits))
  return distinct([threshold, *(constraints.top_up(mask, logits) for mask in masks)])


def distinct(masks: Sequence[np.ndarray]) -> np.ndarray:
  """Returns the masks without repetitions, in order, bool `[C, N]`."""
  return np.stack(list({mask.tobytes(): mask for mask in masks}.values()))
