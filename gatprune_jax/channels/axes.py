"""Labelled axes: what every rule is written in.

Every axis of every array is either unlabelled (`None`: batch, space) or carries one integer label
per element.
"""

from collections.abc import Callable

import numpy as np

from gatprune_jax.channels.classes import LabelClasses

Axis = np.ndarray | None  # int64 [size] labels, or None
Axes = tuple[Axis, ...]  # one entry per axis of an array
Kept = Callable[[np.ndarray], np.ndarray]  # labels [size] -> bool [size]

# Axes of a kernel that slide over space. Frozen, but nothing a user would want reported.
WINDOW = "window of a kernel"
UNLABELLED = "contracted with an axis that is not a channel axis: the model's input, batch or space"


def freeze_axes(classes: LabelClasses, axes: Axes, reason: str) -> None:
  """Freezes every labelled axis of an array."""
  for labels in axes:
    if labels is not None:
      classes.freeze(labels, reason)


def merge(classes: LabelClasses, first: Axis, second: Axis, reason: str) -> Axis:
  """Unifies two axes of equal size; a labelled one that meets an unlabelled one is frozen."""
  if first is not None and second is not None:
    classes.unify(first, second)
    return first
  for labels in (first, second):
    if labels is not None:
      classes.freeze(labels, reason)
  return None


def unlabelled(eqn) -> list[Axes]:
  """The results of an equation that carries no labels."""
  return [(None,) * len(out.aval.shape) for out in eqn.outvars]


def resized(shape: tuple, axes: Axes, kept: Kept) -> tuple:
  """The shape of an array once the channels that are not kept are gone."""
  return tuple(
    size if labels is None else int(kept(labels).sum())
    for size, labels in zip(shape, axes, strict=True)
  )
