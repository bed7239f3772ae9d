"""Refinement, the last step of a search: exchanges of channels around the best masks."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
import heapq
import itertools

import numpy as np

from gatprune_jax.channels import Constraints, ranks
from gatprune_jax.criteria import allocate


def neighbours(
  constraints: Constraints, mask: np.ndarray, logits: np.ndarray
) -> Iterator[np.ndarray]:
  """Yields the masks that exchange kept channels for removed ones, likeliest exchange first.

  A kept channel is exchanged for a removed one. Where the device computes channels in blocks, this
  is done within groups only, and in turn with exchanges of widths: one group is brought to a
  smaller allowed width, and another one to a larger.

  The likelihood of an exchange follows the mean logit of the channels that are added minus that of
  the channels that are removed. If the added channels cost more than the removed ones, the kept
  channels with the lowest logits are removed until the mask fits the budgets. Any budget that is
  left is spent on the removed channels with the highest logits.

  Args:
    constraints: the budgets and the allowed widths.
    mask: a feasible mask, bool `[N]`.
    logits: the policy's logits, `[N]`.
  """
  singles = likeliest_first(np.flatnonzero(mask)[:, None], np.flatnonzero(~mask)[:, None], logits)
  exchanges = singles
  if constraints.block > 1:
    group_of = constraints.graph.group_of
    within = ((out, into) for out, into in singles if group_of[out[0]] == group_of[into[0]])
    of_widths = likeliest_first(*_changes_of_width(constraints, mask, logits), logits)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(of_widths, within))
    exchanges = (exchange for exchange in in_turn if exchange is not None)
  # Channels of the mask have priority over all others; within both sets the logits decide.
  priority = -ranks(logits) + len(mask) * mask
  for out, into in exchanges:
    changed = priority.copy()
    changed[into], changed[out] = 2 * len(mask), -2 * len(mask)
    yield allocate(constraints, ranks(changed))


def likeliest_first(
  outs: Sequence[np.ndarray], intos: Sequence[np.ndarray], logits: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields all pairs of channels to remove and channels to add, by their mean logits.

  Pairs are made as they are asked for: few are, and a large network has too many to list.

  Args:
    outs: sets of channels to remove, ids each.
    intos: sets of channels to add.
    logits: the policy's logits, `[N]`.
  """
  mean = lambda channels: logits[channels].mean()
  outs, intos = sorted(outs, key=mean), sorted(intos, key=mean, reverse=True)
  pair = lambda out, into: (mean(outs[out]) - mean(intos[into]), out, into)
  waiting = [pair(0, 0)] if outs and intos else []
  while waiting:
    _, out, into = heapq.heappop(waiting)
    yield outs[out], intos[into]
    # With the same channels to remove, less likely channels to add come later. Less likely channels
    # to remove come later too, even with the likeliest ones to add. So every pair waits before it
    # is due, and is pushed once.
    if into + 1 < len(intos):
      heapq.heappush(waiting, pair(out, into + 1))
    if into == 0 and out + 1 < len(outs):
      heapq.heappush(waiting, pair(out + 1, 0))


def _changes_of_width(
  constraints: Constraints, mask: np.ndarray, logits: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """Returns the channels that bring one group to another allowed width, a row for each width.

  Returns:
    The kept channels to remove, which have the lowest logits of their group, and the removed ones
    to add, which have the highest.
  """
  smaller, larger = [], []
  for group, widths in zip(constraints.graph.groups, constraints.widths, strict=True):
    rising = group.channels[np.argsort(logits[group.channels], kind="stable")]
    kept, removed = rising[mask[rising]], rising[~mask[rising]]
    for width in np.unique(widths):
      if width < len(kept):
        smaller.append(kept[: len(kept) - width])
      elif width > len(kept):
        larger.append(removed[len(rising) - width :])
  return smaller, larger


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
