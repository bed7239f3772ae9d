"""The last step of a search: exchanges of two channels around the best mask, until none helps."""

from collections.abc import Callable, Collection, Iterator

import numpy as np

from gatprune_jax.channels import Constraints, ranks
from gatprune_jax.criteria import allocate


def neighbours(
  constraints: Constraints, mask: np.ndarray, logits: np.ndarray
) -> Iterator[np.ndarray]:
  """The masks with one removed channel in and one kept channel out, likeliest exchange first.

  Where the channel that comes in costs more than the one that goes, the kept channels with the
  lowest logits make room; what is left of the budget goes to the removed ones with the highest.

  Args:
    constraints: the budgets and floors.
    mask: feasible, bool `[N]`.
    logits: the policy's, `[N]`.
  """
  kept, removed = np.flatnonzero(mask), np.flatnonzero(~mask)
  gain = logits[removed][None] - logits[kept][:, None]
  # The order in which channels are kept: those of the mask before the others, by logit.
  priority = -ranks(logits) + len(mask) * mask
  for pair in np.argsort(-gain, axis=None, kind="stable"):
    out, into = np.unravel_index(pair, gain.shape)
    changed = priority.copy()
    changed[removed[into]], changed[kept[out]] = 2 * len(mask), -2 * len(mask)
    yield allocate(constraints, ranks(changed))


def refine(
  neighbours_of: Callable[[np.ndarray], Iterator[np.ndarray]],
  score: Callable[[np.ndarray], np.ndarray],
  mask: np.ndarray,
  best: float,
  known: Collection[bytes],
  num_masks: int,
  batch: int,
) -> np.ndarray:
  """Moves to the best of a batch of neighbours while that improves the score.

  Args:
    neighbours_of: a mask's neighbours, most promising first.
    score: masks `[C, N]` -> scores `[C]`.
    mask: where to start, bool `[N]`.
    best: its score.
    known: bytes of masks that were scored before, at any time, and are no better than the start:
      they are passed over.
    num_masks: how many to score at most.
    batch: how many at once.

  Returns:
    A mask from which no neighbour improves, or the best one once `num_masks` were scored.
  """
  waiting = neighbours_of(mask)
  while num_masks > 0:
    fresh = {}
    for child in waiting:
      if child.tobytes() not in known:
        fresh[child.tobytes()] = child
      if len(fresh) == min(batch, num_masks):
        break
    if not fresh:
      break
    children = np.stack(list(fresh.values()))
    scores = score(children)
    num_masks -= len(children)
    if scores.max() > best:
      mask, best = children[scores.argmax()], scores.max()
      waiting = neighbours_of(mask)
  return mask
