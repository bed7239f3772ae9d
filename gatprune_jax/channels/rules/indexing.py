"""Rules for operations that select elements of an axis.

Each primitive has up to two functions here. `name(classes, eqn, inputs)` returns the labelled axes
of the results, given those of the operands, and merges or freezes label classes. `name_params(eqn,
inputs, outputs, kept)` returns the equation's parameters for the channels that remain, or None if
the equation must be evaluated at its dense shapes. `rules.table` lists both for every primitive.
"""

import itertools

import numpy as np

from gatprune_jax.channels.rules.axes import (
  ALONE,
  Axes,
  Axis,
  couple,
  distribute,
  freeze_axes,
  has_parts,
  resized,
  slice_axes,
)
from gatprune_jax.channels.rules.classes import LabelClasses


def slice_(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Selects labels at the positions at which the slice selects elements."""
  p = eqn.params
  strides = p["strides"] or (1,) * len(inputs[0])
  return [slice_axes(inputs[0], [*map(slice, p["start_indices"], p["limit_indices"], strides)])]


def slice_params(eqn, inputs, outputs, kept):
  """Returns where the slice begins and ends among the kept channels.

  Returns None, so that the slice runs at dense shapes, if it has a stride on a labelled axis or if
  labels are joint.
  """
  if has_parts(inputs[0]):
    return None
  start, limit = list(eqn.params["start_indices"]), list(eqn.params["limit_indices"])
  for axis, labels in enumerate(outputs[0]):
    if labels is not None:
      if eqn.params["strides"] is not None and eqn.params["strides"][axis] != 1:
        return None
      before = np.concatenate([[0], np.cumsum(kept(inputs[0][axis]))])
      start[axis], limit[axis] = int(before[start[axis]]), int(before[limit[axis]])
  return {**eqn.params, "start_indices": tuple(start), "limit_indices": tuple(limit)}


def split(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Splits the labels of an axis into the same consecutive runs as the elements."""
  axis, ends = eqn.params["axis"], np.cumsum(eqn.params["sizes"]).tolist()
  everything = [slice(None)] * len(inputs[0])
  runs = [slice(*ends_of_run) for ends_of_run in itertools.pairwise([0, *ends])]
  return [slice_axes(inputs[0], [*everything[:axis], run, *everything[axis + 1 :]]) for run in runs]


def split_params(eqn, inputs, outputs, kept):
  """Returns the number of kept elements of each run; None, for dense shapes, of joint labels."""
  if has_parts(inputs[0]):
    return None
  axis, sizes = eqn.params["axis"], eqn.params["sizes"]
  left = [
    size if axes[axis] is None else int(kept(axes[axis]).sum())
    for size, axes in zip(sizes, outputs, strict=True)
  ]
  return {**eqn.params, "sizes": tuple(left)}


def rev(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Reverses the labels together with the elements."""
  reversed_ = eqn.params["dimensions"]
  return [
    tuple(
      labels[::-1] if labels is not None and k in reversed_ else labels
      for k, labels in enumerate(inputs[0])
    )
  ]


def dynamic_slice(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Keeps the labels of axes that are taken whole and freezes the axes that are cut.

  The position of a dynamic slice is known only at run time, so the selected labels are unknown.
  """
  sizes, shape = eqn.params["slice_sizes"], eqn.invars[0].aval.shape
  cut = tuple(
    labels if size != full else None
    for labels, size, full in zip(inputs[0], sizes, shape, strict=True)
  )
  freeze_axes(classes, cut, "channels selected by `dynamic_slice`")
  return [tuple(a if b is None else None for a, b in zip(inputs[0], cut, strict=True))]


def dynamic_slice_params(eqn, inputs, outputs, kept):
  """Returns the slice sizes with the new size of every axis that is taken whole."""
  return {**eqn.params, "slice_sizes": resized(eqn.params["slice_sizes"], outputs[0], kept)}


def gather(
  classes: LabelClasses, eqn, inputs: list[Axes], indices: np.ndarray | None
) -> list[Axes]:
  """Selects labels at the indices if they are known, and freezes the labels otherwise.

  If the batch size is symbolic, JAX turns even plain indexing such as `x[:, :3]` into a gather.

  Args:
    classes: the label classes, which are merged or frozen.
    eqn: the equation of the gather.
    inputs: the labelled axes of the operand and of the indices.
    indices: the value of the indices, or None if it is not known before the program runs.
  """
  dims, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
  if has_parts(inputs[0]):
    if (window := _only_window(eqn, indices)) is not None:
      freeze_axes(classes, inputs[1], "used as indices of `gather`")
      axes = slice_axes(inputs[0], window)
      return [tuple(axis for k, axis in enumerate(axes) if k not in dims.collapsed_slice_dims)]
    inputs = [couple(classes, inputs[0]), inputs[1]]
  shape = eqn.invars[0].aval.shape
  out: list[Axis] = [None] * len(eqn.outvars[0].aval.shape)
  sliced = [
    k
    for k in range(len(shape))
    if k not in dims.collapsed_slice_dims and k not in dims.operand_batching_dims
  ]
  # The result's axes that come from the axes of the array of indices.
  indexed = [k for k in range(len(out)) if k not in dims.offset_dims]
  freeze_axes(classes, inputs[1], "used as indices of `gather`")
  for k, labels in enumerate(inputs[0]):
    if labels is None:
      continue
    if k in sliced and k not in dims.start_index_map and sizes[k] == shape[k]:
      out[dims.offset_dims[sliced.index(k)]] = labels
      continue
    starts = None
    if indices is not None and k in dims.start_index_map:
      starts = indices[..., dims.start_index_map.index(k)]
      if (starts < 0).any() or (starts > shape[k] - sizes[k]).any():
        starts = None  # such indices are clipped, or give a fill value that is no channel
    if starts is None or k in dims.operand_batching_dims:
      classes.freeze(labels, "selected by `gather`")
    elif k in sliced and (starts == starts.flat[0]).all():
      start = int(starts.flat[0])
      out[dims.offset_dims[sliced.index(k)]] = labels[start : start + sizes[k]]
    elif k in sliced:
      classes.freeze(labels, "selected by `gather`")
    elif starts.size == 1:
      classes.freeze(labels[starts.ravel()], ALONE)
    elif any(out[axis] is not None for axis in indexed):  # an element would have two labels
      freeze_axes(classes, (*out, labels), "several channel axes selected by `gather`")
    else:
      for axis, chosen in zip(indexed, distribute(labels[starts]), strict=True):
        out[axis] = chosen
  return [tuple(out)]


def _only_window(eqn, indices: np.ndarray | None) -> list[slice] | None:
  """Returns where the only window of a gather lies; None if it is unknown or one of several."""
  dims, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
  shape = eqn.invars[0].aval.shape
  if indices is None or indices.ndim != 1 or dims.operand_batching_dims:
    return None
  starts = dict(zip(dims.start_index_map, indices.tolist(), strict=True))
  if not all(0 <= start <= shape[k] - sizes[k] for k, start in starts.items()):
    return None
  # On an axis without a start, which may be a batch of unknown size, the window begins at 0.
  first = [starts.get(k, 0) for k in range(len(shape))]
  return [
    slice(None) if size == whole else slice(start, start + size)
    for start, size, whole in zip(first, sizes, shape, strict=True)
  ]


def gather_params(eqn, inputs, outputs, kept):
  """Returns the slice sizes with the new size of every axis that is taken whole.

  Returns None, so that the gather runs at dense shapes, if it selects elements of an axis that has
  lost some, or if labels are joint.
  """
  if has_parts(inputs[0]):
    return None
  shape, sizes = eqn.invars[0].aval.shape, list(eqn.params["slice_sizes"])
  # A collapsed axis is read at one element, so its slice size must stay 1.
  collapsed = eqn.params["dimension_numbers"].collapsed_slice_dims
  for k, labels in enumerate(inputs[0]):
    if labels is not None and sizes[k] == shape[k] and k not in collapsed:
      sizes[k] = int(kept(labels).sum())
    elif labels is not None and not kept(labels).all():
      return None
  return {**eqn.params, "slice_sizes": tuple(sizes)}
