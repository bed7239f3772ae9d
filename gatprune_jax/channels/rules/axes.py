"""Labels of array axes, the data that every rule takes and returns.

Every axis of every array is either unlabelled (`None`, for batch and space) or carries one integer
label for each element. If a reshape splits an axis of channels, the new axes carry the labels
jointly (`JointAxis`).
"""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

from gatprune_jax.channels.rules.classes import LabelClasses


@dataclasses.dataclass(frozen=True, eq=False)
class JointAxis:
  """One of several axes whose elements are labelled jointly.

  Element (i, j, ...) along the axes that share `labels` has the label `labels[i, j, ...]`. The kept
  elements may not form a rectangle, so arrays hold joint axes at their dense size until a reshape
  merges the axes again. Until then, a removed element holds an arbitrary value.

  Example: an axis of 6 elements has the labels [0, 1, 2, 3, 4, 5].

    reshape (6,) to (2, 3):  labels = [[0, 1, 2],    axis of size 2: JointAxis(labels, dim=0)
                                       [3, 4, 5]]    axis of size 3: JointAxis(labels, dim=1)
    reshape (2, 3) to (6,):  one plain axis again, with labels [0, 1, 2, 3, 4, 5]

  If labels 0, 1 and 5 are kept, the elements (0, 0), (0, 1) and (1, 2) remain, and no smaller
  rectangle holds exactly these three elements. So the first reshape runs at the dense sizes, and
  the result of the second reshape is cut to 3 elements. A transpose to (3, 2) between the two
  reshapes swaps the two axes, and the second reshape then gives the labels [0, 3, 1, 4, 2, 5], as
  in a channel shuffle. Before an operation that cannot carry joint labels, `couple` replaces the
  joint labels of the two axes: the axis of size 3 gets the plain labels [0, 1, 2], the axis of size
  2 becomes unlabelled, and the label pairs (0, 3), (1, 4) and (2, 5) are unified.

  Attributes:
    labels: int64 array with one dimension for each axis that shares the labels; all of these axes
      hold the same array object.
    dim: the dimension of `labels` that belongs to this axis.
  """

  labels: np.ndarray
  dim: int


Axis = np.ndarray | JointAxis | None  # int64 [size] labels, a part of joint labels, or None
Axes = tuple[Axis, ...]  # one entry per axis of an array
Kept = Callable[[np.ndarray], np.ndarray]  # labels [size] -> bool [size]

# Reasons for freezing an axis, shared by several rules. WINDOW is for the spatial axes of a kernel
# and for the input axis of a depthwise kernel; the report of frozen axes leaves WINDOW out because
# no user expects to prune such an axis. ALONE is for a single selected element, which no other
# element could replace.
WINDOW = "window of a kernel"
ALONE = "selected alone"
UNLABELLED = "contracted with what has no channels: the input, space, or a result without a rule"


def freeze_axes(classes: LabelClasses, axes: Axes, reason: str) -> None:
  """Freezes every labelled axis of an array.

  Args:
    classes: the label classes, in which the labels are frozen.
    axes: the axes of one array.
    reason: the text that is reported for the frozen labels.
  """
  for labels in axes:
    if isinstance(labels, JointAxis):
      labels = labels.labels.ravel()
    if labels is not None:
      classes.freeze(labels, reason)


def merge(classes: LabelClasses, first: Axis, second: Axis, reason: str) -> Axis:
  """Unifies the labels of two axes of equal size, or freezes labels that only one axis has.

  Args:
    classes: the label classes, in which the labels are unified or frozen.
    first: an axis of plain labels `[size]`, or None.
    second: an axis of plain labels of the same size, or None.
    reason: the text that is reported if the labels are frozen.

  Returns:
    The labels of the first axis if both axes are labelled, else None.
  """
  if first is not None and second is not None:
    classes.unify(first, second)
    return first
  for labels in (first, second):
    if labels is not None:
      classes.freeze(labels, reason)
  return None


def merge_all(classes: LabelClasses, operands: list[Axes], reason: str) -> Axes:
  """Merges the axes of several arrays of the same shape, axis by axis; see `merge`."""
  axes = operands[0]
  for other in operands[1:]:
    axes = tuple(merge(classes, *pair, reason) for pair in zip(axes, other, strict=True))
  return axes


def has_parts(axes: Axes) -> bool:
  """Returns whether some axes of an array have joint labels."""
  return any(isinstance(labels, JointAxis) for labels in axes)


def couple(classes: LabelClasses, axes: Axes) -> Axes:
  """Replaces joint labels by plain labels on the longest of the joint axes.

  Element j of the longest axis then stands for the elements (i, j) for all i, whose labels are
  unified. The other joint axes become unlabelled.
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
  """Returns the axes of an array whose elements have the given labels `[...]`.

  An axis along which the labels only repeat is unlabelled. A single remaining axis has plain
  labels; several remaining axes have joint labels.
  """
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


def slice_axes(axes: Axes, slices: Sequence[slice]) -> Axes:
  """Returns the axes of `x[slices]`, given those of an array x.

  A slice can leave joint labels that only repeat along an axis, which is then unlabelled. So the
  queries, keys and values that one dense layer makes have labels of their own once they are apart.
  """
  out: list[Axis] = [
    axis[chosen] if isinstance(axis, np.ndarray) else None
    for axis, chosen in zip(axes, slices, strict=True)
  ]
  return with_joints(axes, out, lambda labels, where: labels[*(slices[k] for k in where)])


def with_joints(
  axes: Axes, plain: Sequence[Axis], change: Callable[[np.ndarray, list[int]], np.ndarray]
) -> Axes:
  """Returns axes whose joint labels are changed, and anew distributed to the axes they lie on.

  Args:
    axes: the axes of one array.
    plain: what the other axes become.
    change: maps joint labels, in the order of their axes, and the positions of these axes to the
      new labels.
  """
  out = list(plain)
  for labels in {id(a.labels): a.labels for a in axes if isinstance(a, JointAxis)}.values():
    where = [k for k, a in enumerate(axes) if isinstance(a, JointAxis) and a.labels is labels]
    changed = change(labels.transpose([axes[k].dim for k in where]), where)
    for k, axis in zip(where, distribute(changed), strict=True):
      out[k] = axis
  return tuple(out)


def unlabelled(eqn) -> list[Axes]:
  """Returns unlabelled axes for all results of an equation."""
  return [(None,) * len(out.aval.shape) for out in eqn.outvars]


def resized(shape: tuple, axes: Axes, kept: Kept) -> tuple:
  """Returns the shape of an array after the elements that are not kept have been removed.

  Args:
    shape: the dense shape, or any sizes with one entry for each axis.
    axes: the axes of the array; none has joint labels.
    kept: maps labels `[size]` to bool `[size]`, true for an element that remains.
  """
  return tuple(
    size if labels is None else int(kept(labels).sum())
    for size, labels in zip(shape, axes, strict=True)
  )
