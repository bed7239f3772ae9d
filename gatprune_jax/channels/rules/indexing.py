"""Rules of operations that select elements of an axis; see `rules`."""

import numpy as np

from gatprune_jax.channels.rules.axes import (
  ALONE,
  Axes,
  Axis,
  distribute,
  freeze_axes,
  resized,
)
from gatprune_jax.channels.rules.classes import LabelClasses


def slice_(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Selects the labels that it selects the elements of."""
  p = eqn.params
  strides = p["strides"] or (1,) * len(inputs[0])
  return [
    tuple(
      None if labels is None else labels[start:limit:stride]
      for labels, start, limit, stride in zip(
        inputs[0], p["start_indices"], p["limit_indices"], strides, strict=True
      )
    )
  ]


def slice_params(eqn, inputs, outputs, kept):
  """Where a run begins and ends among the kept channels; None, at dense shapes, if strided."""
  start, limit = list(eqn.params["start_indices"]), list(eqn.params["limit_indices"])
  for axis, labels in enumerate(outputs[0]):
    if labels is not None:
      if eqn.params["strides"] is not None and eqn.params["strides"][axis] != 1:
        return None
      before = np.concatenate([[0], np.cumsum(kept(inputs[0][axis]))])
      start[axis], limit[axis] = int(before[start[axis]]), int(before[limit[axis]])
  return {**eqn.params, "start_indices": tuple(start), "limit_indices": tuple(limit)}


def split(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Consecutive runs of an axis."""
  axis, ends = eqn.params["axis"], np.cumsum(eqn.params["sizes"])
  labels = inputs[0][axis]
  runs = [None] * len(ends) if labels is None else np.split(labels, ends[:-1])
  return [(*inputs[0][:axis], run, *inputs[0][axis + 1 :]) for run in runs]


def split_params(eqn, inputs, outputs, kept):
  """The sizes of the runs."""
  axis, sizes = eqn.params["axis"], eqn.params["sizes"]
  left = [
    size if axes[axis] is None else int(kept(axes[axis]).sum())
    for size, axes in zip(sizes, outputs, strict=True)
  ]
  return {**eqn.params, "sizes": tuple(left)}


def rev(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Reverses the labels with the elements."""
  reversed_ = eqn.params["dimensions"]
  return [
    tuple(
      labels[::-1] if labels is not None and k in reversed_ else labels
      for k, labels in enumerate(inputs[0])
    )
  ]


def dynamic_slice(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """A window at a computed place: axes that are taken whole stay labelled."""
  sizes, shape = eqn.params["slice_sizes"], eqn.invars[0].aval.shape
  cut = tuple(
    labels if size != full else None
    for labels, size, full in zip(inputs[0], sizes, shape, strict=True)
  )
  freeze_axes(classes, cut, "channels selected by `dynamic_slice`")
  return [tuple(a if b is None else None for a, b in zip(inputs[0], cut, strict=True))]


def dynamic_slice_params(eqn, inputs, outputs, kept):
  """Whole axes are taken at their new size."""
  return {**eqn.params, "slice_sizes": resized(eqn.params["slice_sizes"], outputs[0], kept)}


def gather(
  classes: LabelClasses, eqn, inputs: list[Axes], indices: np.ndarray | None
) -> list[Axes]:
  """Selects the labels that it selects the elements of, where the indices are known.

  Indexing with a symbolic batch size is a gather, whatever it is without.
  """
  dims, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
  shape = eqn.invars[0].aval.shape
  out: list[Axis] = [None] * len(eqn.outvars[0].aval.shape)
  sliced = [
    k
    for k in range(len(shape))
    if k not in dims.collapsed_slice_dims and k not in dims.operand_batching_dims
  ]
  indexed = [k for k in range(len(out)) if k not in dims.offset_dims]  # by the indices' own axes
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
        starts = None  # clipped, or filled with what is no channel
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


def gather_params(eqn, inputs, outputs, kept):
  """Whole axes are taken at their new size; None, at dense shapes, where elements are selected."""
  shape, sizes = eqn.invars[0].aval.shape, list(eqn.params["slice_sizes"])
  collapsed = eqn.params["dimension_numbers"].collapsed_slice_dims  # of one element, to be there
  for k, labels in enumerate(inputs[0]):
    if labels is not None and sizes[k] == shape[k] and k not in collapsed:
      sizes[k] = int(kept(labels).sum())
    elif labels is not None and not kept(labels).all():
      return None
  return {**eqn.params, "slice_sizes": tuple(sizes)}
