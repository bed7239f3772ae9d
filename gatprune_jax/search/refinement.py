"""Refinement, the last step of a search: exchanges of two channels around the best masks."""

from collections.abc import Callable, Collection, Iterable, Iterator

import numpy as np

from gatprune_jax.channels import Constraints, ranks
from gatprune_jax.criteria import allocate


def neighbours(
  constraints: Constraints, mask: np.ndarray, logits: np.ndarray
) -> Iterator[np.ndarray]:
  """Yields the masks that exchange a kept channel for a removed one, likeliest exchange first.

  The likelihood of an exchange follows the logit of the channel that is added minus the logit of
  the channel that is removed. If the added channel costs more than the removed one, the kept
  channels with the lowest logits are removed until the mask fits the budgets. Any budget that is
  left is spent on the removed channels with the highest logits.

  Args:
    constraints: the budgets and floors.
    mask: a feasible mask, bool `[N]`.
    logits: the policy's logits, `[N]`.
  """
  kept, removed = np.flatnonzero(mask), np.flatnonzero(~mask)
  gain = logits[removed][None] - logits[kept][:, None]
  # Channels of the mask have priority over all others; within both sets the logits decide.
  priority = -ranks(logits) + len(mask) * mask
  for pair in np.argsort(-gain, axis=None, kind="stable"):
    out, into = np.unravel_index(pair, gain.shape)
    changed = priority.copy()
    changed[removed[into]], changed[kept[out]] = 2 * len(mask), -2 * len(mask)
    yield allocate(constraints, ranks(changed))


def refine(
  neighbours_of: Callable[[np.ndarray], Iterator[np.ndarray]],
  score: Callable[[np.ndarray], np.ndarray],
  ranked: Callable[[], Iterable[np.ndarray]],
  best: float,
  known: Collection[bytes],
  num_masks: int,
  batch: int,
) -> np.ndarray:
  """Improves the best mask by best-first search over neighbours, scored batch by batch.

  Whenever the best mask of a batch improves the score, the search continues from that mask;
  otherwise it continues with the next batch of neighbours of the current mask. A mask without new
  neighbours is a local optimum: a better mask, of other widths perhaps, is several exchanges away,
  and those between are worse. So the search continues around the best mask that it has not yet
  exhausted.

  Args:
    neighbours_of: returns an iterator over a mask's neighbours, most promising first.
    score: masks `[C, N]` -> scores `[C]`, which `ranked` knows from then on.
    ranked: returns the feasible masks scored so far, bool `[N]` each, best first, at least one.
    best: score of the first of these.
    known: bytes of all masks scored so far; they are not scored again.
    num_masks: largest number of masks to score.
    batch: number of masks to score at once.

  Returns:
    The best mask. If fewer than `num_masks` were scored, no neighbour of any mask is better.
  """
  mask = top = next(iter(ranked()))
  exhausted = set()
  waiting = neighbours_of(mask)
  while num_masks > 0:
    fresh = {}
    for child in waiting:
      if child.tobytes() not in known:
        fresh[child.tobytes()] = child
      if len(fresh) == min(batch, num_masks):
        break
    if not fresh:
      exhausted.add(mask.tobytes())
      mask = next((other for other in ranked() if other.tobytes() not in exhausted), None)
      if mask is None:
        break
      waiting = neighbours_of(mask)
      continue
    children = np.stack(list(fresh.values()))
    scores = score(children)
    num_masks -= len(children)
    if scores.max() > best:
      mask = top = children[scores.argmax()]
      best = scores.max()
      waiting = neighbours_of(mask)
  return top
