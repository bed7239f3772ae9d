"""Rules for reshapes, which carry labels through flattened, split and merged axes.

`reshape(classes, eqn, inputs)` returns the labelled axes of the result, given those of the operand,
and merges or freezes label classes. `reshape_params(eqn, inputs, outputs, kept)` returns the
equation's parameters for the channels that remain, or None if the reshape must be evaluated at its
dense shapes. `axes.JointAxis` shows an example of a split and a merge.
"""

import math

import jax
import numpy as np

from gatprune_jax.channels.rules.axes import (
  ALONE,
  Axes,
  Axis,
  JointAxis,
  couple,
  distribute,
  freeze_axes,
  has_parts,
  resized,
  unlabelled,
)
from gatprune_jax.channels.rules.classes import LabelClasses


def _reshape_blocks(old: tuple, new: tuple) -> list[tuple[list[int], list[int]]] | None:
  """Pairs runs of old axes with the runs of new axes that hold the same elements.

  Returns None where the two shapes do not factor into such runs.
  """
  blocks, i, j = [], 0, 0
  while i < len(old) or j < len(new):
    left, right = [], []
    if i < len(old):
      left.append(i)
      i += 1
    if j < len(new):
      right.append(j)
      j += 1
    while math.prod(old[k] for k in left) != math.prod(new[k] for k in right):
      grow_left = _is_smaller([old[k] for k in left], [new[k] for k in right])
      if grow_left and i < len(old):
        left.append(i)
        i += 1
      elif j < len(new):
        right.append(j)
        j += 1
      else:
        return None
    blocks.append((left, right))
  return blocks


def _is_smaller(left: list, right: list) -> bool:
  """Returns whether the axes on the left hold fewer elements than those on the right.

  Of symbolic sizes that cannot be compared, the run of fewer axes counts as smaller.
  """
  try:
    return bool(math.prod(left) < math.prod(right))
  except jax.errors.InconclusiveDimensionOperation:
    return len(left) <= len(right)


def reshape(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Carries labels through axes of size 1, flattening with space, and split or merged channels."""
  (axes, old), new = (inputs[0], eqn.invars[0].aval.shape), eqn.params["new_sizes"]
  if (order := eqn.params["dimensions"]) is not None:  # the operand is transposed first
    axes, old = tuple(axes[k] for k in order), tuple(old[k] for k in order)
  blocks = _reshape_blocks(old, new)
  if blocks is None:
    freeze_axes(classes, axes, "reshape whose axes do not pair up with the operand's")
    return unlabelled(eqn)
  if not all(_joined([axes[k] for k in left]) for left, _ in blocks):
    axes = couple(classes, axes)
  out: list[Axis] = [None] * len(new)
  for left, right in blocks:
    block = _one_labelled(classes, [axes[k] for k in left])
    labels = _labels_of_block(block, [old[k] for k in left])
    if labels is None:
      reason = "reshape that merges a channel axis with another one or with the batch"
      freeze_axes(classes, tuple(axes[k] for k in left), reason)
    elif labels.size and not right:
      classes.freeze(labels.ravel(), ALONE)
    elif labels.size:
      wide = [k for k in right if new[k] != 1] or right[-1:]
      for k, axis in zip(wide, distribute(labels.reshape([new[k] for k in wide])), strict=True):
        out[k] = axis
  return [tuple(out)]


def _joined(block: list[Axis]) -> bool:
  """Returns whether a block of axes has no joint labels or all axes of one joint labelling."""
  parts = [axis for axis in block if isinstance(axis, JointAxis)]
  return not parts or (
    all(axis.labels is parts[0].labels for axis in parts) and len(parts) == parts[0].labels.ndim
  )


def _one_labelled(classes: LabelClasses, block: list[Axis]) -> list[Axis]:
  """Freezes all but one of several labelled axes that are merged, so an element has one label.

  Copies of a channel, as `jnp.repeat` makes them, remain with it. Of several axes of a variable the
  longest keeps its labels: of the kernels of an ensemble, which are merged to one kernel, the same
  channel can be removed from all members.
  """
  labelled = [k for k, axis in enumerate(block) if axis is not None]
  if len(labelled) < 2 or has_parts(block):
    return block
  rank = lambda k: (
    not classes.are_copies(block[k]), not classes.are_frozen(block[k]), len(block[k]), k
  )  # fmt: skip
  kept = max(labelled, key=rank)
  for k in labelled:
    if k != kept:
      classes.freeze(block[k], "merged with other channels by a reshape")
  return [axis if k == kept else None for k, axis in enumerate(block)]


def _labels_of_block(block: list[Axis], sizes: list) -> np.ndarray | None:
  """Returns one label per element of a run of axes, int64 `[*sizes]`; empty if none is labelled.

  Returns None if an element would have two labels, or if a size is symbolic.
  """
  labelled = [k for k, axis in enumerate(block) if axis is not None]
  if not labelled:
    return np.empty(0, np.int64)
  first = block[labelled[0]]
  together = isinstance(first, JointAxis)
  if not all(isinstance(size, int) for size in sizes) or (len(labelled) > 1 and not together):
    return None
  labels = first.labels.transpose([block[k].dim for k in labelled]) if together else first
  shape = [size if k in labelled else 1 for k, size in enumerate(sizes)]
  return np.broadcast_to(labels.reshape(shape), sizes)


def reshape_params(eqn, inputs, outputs, kept):
  """Returns the parameters with the new shape; None, for dense shapes, if labels are joint."""
  if has_parts(inputs[0]) or has_parts(outputs[0]):
    return None
  return {**eqn.params, "new_sizes": resized(eqn.params["new_sizes"], outputs[0], kept)}
