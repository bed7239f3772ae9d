"""From a trained policy to masks that satisfy every budget, exactly counted."""

from collections.abc import Sequence

import numpy as np

from gatprune_jax.channels import Constraints, ranks
from gatprune_jax.criteria import allocate


def candidate_masks(
  constraints: Constraints, logits: np.ndarray, masks: Sequence[np.ndarray]
) -> np.ndarray:
  """Distinct feasible masks, bool `[C, N]`, at least one.

  The multipliers bring the policy's *mean* cost to the budget, so about half of its samples
  are infeasible, and the others leave some of the budget. Candidates are the threshold on the
  policy's logits that meets the budgets, first, and the given masks, each with what it leaves of
  the budget spent on the channels the policy likes best.

  Args:
    constraints: the budgets and floors.
    logits: the policy's, `[N]`.
    masks: feasible, bool `[N]`.
  """
  threshold = allocate(constraints, ranks(logits))
  return distinct([threshold, *(constraints.top_up(mask, logits) for mask in masks)])


def distinct(masks: Sequence[np.ndarray]) -> np.ndarray:
  """The masks without repetitions, in order, bool `[C, N]`."""
  return np.stack(list({mask.tobytes(): mask for mask in masks}.values()))
