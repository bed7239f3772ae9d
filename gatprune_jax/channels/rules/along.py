"""Rules for operations whose results depend on all elements of an axis, such as sums and sorting.

Each function `name(classes, eqn, inputs)` returns the labelled axes of the results, given those of
the operands, and merges or freezes label classes. A reduction to a single value reads channels as a
layer does: it does not see the removed ones (see `reductions`). Along the axis of any other
operation channels are frozen, because removing one of them would change what is computed from the
others. All other axes keep their labels.
"""

from collections.abc import Sequence

from gatprune_jax.channels.rules.axes import Axes, merge_all
from gatprune_jax.channels.rules.classes import LabelClasses


def masked_reduction(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Drops the reduced axes, whose removed channels the reduction does not see."""
  return [tuple(a for k, a in enumerate(inputs[0]) if k not in eqn.params["axes"])]


def reduction(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Freezes and drops the reduced axes, and unifies all other axes of several operands."""
  reduced = eqn.params["axes"] if "axes" in eqn.params else eqn.params["dimensions"]
  num = len(eqn.outvars)  # a reduction of several arrays at once has as many initial values
  axes = _merged(classes, eqn, inputs[:num])
  return [_without(classes, eqn, axes, reduced)] * num


def collective(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Drops and freezes the reduced axes that a collective operation gives by number.

  A named axis, of devices or of a `vmap` around the traced function, is no axis of the operands, so
  the operation is element-wise for channels. The axis of a `vmap` inside the traced function is an
  axis of the operands, is given by its number, and is reduced.
  """
  reduced = [axis for axis in eqn.params["axes"] if isinstance(axis, int)]
  return [_without(classes, eqn, axes, reduced) for axes in inputs]


def window(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Keeps the labels of an axis if each element is its own window; freezes all other axes.

  Operands of as many axes as the windows, of which a gradient has two, have the same labels.
  """
  dimensions = eqn.params["window_dimensions"]
  ones = (1,) * len(dimensions)
  windows = zip(
    dimensions, eqn.params["window_strides"], eqn.params["padding"],
    eqn.params.get("base_dilation", ones), strict=True,
  )  # fmt: skip
  moved = [k for k, sizes in enumerate(windows) if sizes != (1, 1, (0, 0), 1)]
  whole = [axes for axes in inputs if len(axes) == len(dimensions)]
  for axes in whole:
    _unlabelled_along(classes, eqn, axes, moved)
  apart = [tuple(None if k in moved else a for k, a in enumerate(axes)) for axes in whole]
  return [_merged(classes, eqn, apart)] * len(eqn.outvars)


def cumulative(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Freezes the axis of a cumulative operation."""
  return [_unlabelled_along(classes, eqn, inputs[0], [eqn.params["axis"]])]


def sort(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Freezes the sorted axis; operands that are sorted together have the same labels elsewhere."""
  axes = _unlabelled_along(classes, eqn, _merged(classes, eqn, inputs), [eqn.params["dimension"]])
  return [axes] * len(eqn.outvars)


def top_k(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Freezes the axis of which the largest elements are taken; without a parameter, the last one."""
  axis = eqn.params.get("axis", eqn.params.get("reduction_dimension", -1))
  axes = _unlabelled_along(classes, eqn, inputs[0], [axis])
  return [axes] * len(eqn.outvars)


def fft(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Freezes the transformed axes, which are the last ones."""
  num = len(eqn.params["fft_lengths"])
  return [_unlabelled_along(classes, eqn, inputs[0], range(len(inputs[0]) - num, len(inputs[0])))]


def _merged(classes: LabelClasses, eqn, inputs: list[Axes]) -> Axes:
  """Unifies the labels of operands of the same shape, axis by axis."""
  reason = f"`{eqn.primitive.name}` with an axis that is not a channel axis"
  return merge_all(classes, inputs, reason)


def _unlabelled_along(classes: LabelClasses, eqn, axes: Axes, along: Sequence[int]) -> Axes:
  along = [axis % len(axes) for axis in along]
  for axis in along:
    if axes[axis] is not None:
      classes.freeze(axes[axis], f"`{eqn.primitive.name}` over channels")
  return tuple(None if k in along else labels for k, labels in enumerate(axes))


def _without(classes: LabelClasses, eqn, axes: Axes, reduced: Sequence[int]) -> Axes:
  for axis in reduced:
    if axes[axis] is not None:
      classes.freeze(axes[axis], f"statistics over channels by `{eqn.primitive.name}`")
  return tuple(labels for k, labels in enumerate(axes) if k not in reduced)
