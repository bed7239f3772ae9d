"""Labelled axes: what every rule is written in.

Every axis of every array is either unlabelled (`None`: batch, space) or carries one integer label
per element. Where a reshape splits an axis of channels, the new axes carry the labels together.
"""

from collections.abc import Callable
import dataclasses

import numpy as np

from gatprune_jax.channels.rules.classes import LabelClasses


@dataclasses.dataclass(frozen=True, eq=False)
class JointAxis:
  """One of several axes whose elements are labelled together.

  Element (i, j, ...) along the axes that are parts of the same labels has label
  `labels[i, j, ...]`. What is kept is then no box, so arrays hold these axes at their dense size
  (a removed element holds any value) until a reshape joins them again.

  Attributes:
    labels: int64, one dimension per part; the same array object in all of them.
    dim: which dimension of `labels` this axis is.
  """

  labels: np.ndarray
  dim: int


Axis = np.ndarray | JointAxis | None  # int64 [size] labels, a part of joint labels, or None
Axes = tuple[Axis, ...]  # one entry per axis of an array
Kept = Callable[[np.ndarray], np.ndarray]  # labels [size] -> bool [size]

# Axes of a kernel that slide over space. Frozen, but nothing a user would want reported.
WINDOW = "window of a kernel"
ALONE = "selected alone"  # one element of an axis, so that nothing could take its place
UNLABELLED = "contracted with what has no channels: the input, space, or a result without a rule"


def freeze_axes(classes: LabelClasses, axes: Axes, reason: str) -> None:
  """Freezes every labelled axis of an array."""
  for labels in axes:
    if isinstance(labels, JointAxis):
      labels = labels.labels.ravel()
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


def has_parts(axes: Axes) -> bool:
  """Whether some axes of an array are labelled together."""
  return any(isinstance(labels, JointAxis) for labels in axes)


def couple(classes: LabelClasses, axes: Axes) -> Axes:
  """Gives up joint labels: the longest of their axes keeps one label per element.

  Its element j then stands for the elements (i, j) of all i, which are unified.
  """
  out = list(axes)
  joints = {id(a.labels): a.labels for a in axes if isinstance(a, JointAxis)}
  for labels in joints.values():
    longest = int(np.argmax(labels.shape))
    slices = np.moveaxis(labels, longest, -1).reshape(-1, labels.shape[longest])
    for other in slices[1:]:
      classes.unify(slices[0], other)
    for k, axis in enumerate(axes):
      if isinstance(axis, JointAxis) and axis.labels is labels:
        out[k] = slices[0] if axis.dim == longest else None
  return tuple(out)


def distribute(labels: np.ndarray) -> list[Axis]:
  """The axes of an array of labels `[...]`; those along which labels repeat are left unlabelled."""
  out: list[Axis] = [None] * labels.ndim
  dims = list(range(labels.ndim))
  for dim in range(labels.ndim):
    first = labels.take([0], dim)
    if len(dims) > 1 and (labels == first).all():
      labels = first
      dims.remove(dim)
  labels = labels.squeeze(tuple(k for k in range(len(out)) if k not in dims))
  for position, dim in enumerate(dims):
    out[dim] = labels if len(dims) == 1 else JointAxis(labels, position)
  return out


def unlabelled(eqn) -> list[Axes]:
  """The results of an equation that carries no labels."""
  return [(None,) * len(out.aval.shape) for out in eqn.outvars]


def resized(shape: tuple, axes: Axes, kept: Kept) -> tuple:
  """The shape of an array once the channels that are not kept are gone."""
  return tuple(
    size if labels is None else int(kept(labels).sum())
    for size, labels in zip(shape, axes, strict=True)
  )
