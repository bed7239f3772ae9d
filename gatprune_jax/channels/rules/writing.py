"""Rules for operations that write one array into another, such as `x.at[i].set(y)`.

Each function `name(classes, eqn, inputs)` returns the labelled axes of the result, given those of
the operands, and merges or freezes label classes. An axis that is written whole keeps its labels.
An axis that is written in part is frozen, because the place is known only when the program runs.
"""

from gatprune_jax.channels.rules.axes import Axes, Axis, freeze_axes, merge
from gatprune_jax.channels.rules.classes import LabelClasses


def dynamic_update_slice(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Unifies the axes that the update covers, and freezes those that it covers in part."""
  shapes = [var.aval.shape for var in eqn.invars[:2]]
  covers = [size == whole for whole, size in zip(*shapes, strict=True)]
  return [_written(classes, eqn, inputs[0], inputs[1], covers)]


def scatter(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Unifies the axes of which the update holds whole windows; freezes all other axes."""
  operand, indices, updates = inputs
  dims = eqn.params["dimension_numbers"]
  freeze_axes(classes, indices, f"used as indices of `{eqn.primitive.name}`")
  inserted = (*dims.inserted_window_dims, *dims.operand_batching_dims)
  windows = dict(
    zip((k for k in range(len(operand)) if k not in inserted), dims.update_window_dims, strict=True)
  )
  shape, update_shape = (eqn.invars[k].aval.shape for k in (0, 2))
  rest = tuple(axis for k, axis in enumerate(updates) if k not in dims.update_window_dims)
  freeze_axes(classes, rest, f"places of `{eqn.primitive.name}`")
  given = tuple(updates[windows[k]] if k in windows else None for k in range(len(operand)))
  covers = [
    k in windows and update_shape[windows[k]] == size and k not in dims.scatter_dims_to_operand_dims
    for k, size in enumerate(shape)
  ]
  return [_written(classes, eqn, operand, given, covers)]


def _written(classes: LabelClasses, eqn, operand: Axes, update: Axes, covers: list[bool]) -> Axes:
  """Returns the axes of an array after an update, given which axes the update covers."""
  name, out = eqn.primitive.name, []
  for old, new, whole in zip(operand, update, covers, strict=True):
    merged: Axis = None
    if whole:
      merged = merge(classes, old, new, f"`{name}` with an axis that is not a channel axis")
    else:
      freeze_axes(classes, (old, new), f"written in part by `{name}`")
    out.append(merged)
  return tuple(out)
