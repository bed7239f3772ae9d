"""Rules of operations that move, repeat or select elements; see `rules`."""

import math

import numpy as np

from gatprune_jax.channels.axes import (
  Axes,
  Axis,
  Part,
  couple,
  freeze_axes,
  has_parts,
  merge,
  resized,
  unlabelled,
)
from gatprune_jax.channels.classes import LabelClasses

_SINGLE = "selected alone"


def broadcast_in_dim(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """A new axis has fresh labels: what it meets later decides which elements it keeps."""
  shape = eqn.params["shape"]
  source = dict(zip(eqn.params["broadcast_dimensions"], range(len(inputs[0])), strict=True))
  operand_shape = eqn.invars[0].aval.shape
  out = []
  for axis, size in enumerate(shape):
    if axis in source and operand_shape[source[axis]] == size:
      out.append(inputs[0][source[axis]])
      continue
    if axis in source and inputs[0][source[axis]] is not None:
      classes.freeze(inputs[0][source[axis]], "broadcast over a whole axis")
    is_constant = isinstance(size, int) and size > 1  # not a symbolic batch size
    out.append(classes.fresh(size) if is_constant else None)
  return [tuple(out)]


def broadcast_in_dim_params(eqn, inputs, outputs, kept):
  """The new shape."""
  return {**eqn.params, "shape": resized(eqn.params["shape"], outputs[0], kept)}


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
      if isinstance(sizes := math.prod(old[k] for k in left), int) and isinstance(
        other := math.prod(new[k] for k in right), int
      ):
        grow_left = sizes < other
      else:
        grow_left = len(left) <= len(right)  # symbolic sizes do not compare
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


def reshape(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Carries labels through insertions of 1, flattens with space, splits and joins of channels."""
  (axes, old), new = (inputs[0], eqn.invars[0].aval.shape), eqn.params["new_sizes"]
  blocks = None if eqn.params["dimensions"] is not None else _reshape_blocks(old, new)
  if blocks is None:
    freeze_axes(classes, axes, "reshape whose axes do not pair up with the operand's")
    return unlabelled(eqn)
  if not all(_joined([axes[k] for k in left]) for left, _ in blocks):
    axes = couple(classes, axes)
  out: list[Axis] = [None] * len(new)
  for left, right in blocks:
    labels = _labels_of_block([axes[k] for k in left], [old[k] for k in left])
    if labels is None:
      reason = "reshape that merges a channel axis with another one or with the batch"
      freeze_axes(classes, tuple(axes[k] for k in left), reason)
    elif labels.size and not right:
      classes.freeze(labels.ravel(), _SINGLE)
    elif labels.size:
      wide = [k for k in right if new[k] != 1] or right[-1:]
      for k, axis in zip(wide, _split(labels.reshape([new[k] for k in wide])), strict=True):
        out[k] = axis
  return [tuple(out)]


def _joined(block: list[Axis]) -> bool:
  """Whether a block of axes holds joint labels whole or not at all."""
  parts = [axis for axis in block if isinstance(axis, Part)]
  return not parts or (
    all(axis.labels is parts[0].labels for axis in parts) and len(parts) == parts[0].labels.ndim
  )


def _labels_of_block(block: list[Axis], sizes: list) -> np.ndarray | None:
  """One label per element of a run of axes, int64 `[*sizes]`; empty where none is labelled.

  None where an element would have two labels, or a size is not a number.
  """
  labelled = [k for k, axis in enumerate(block) if axis is not None]
  if not labelled:
    return np.empty(0, np.int64)
  first = block[labelled[0]]
  together = isinstance(first, Part)
  if not all(isinstance(size, int) for size in sizes) or (len(labelled) > 1 and not together):
    return None
  labels = first.labels.transpose([block[k].dim for k in labelled]) if together else first
  shape = [size if k in labelled else 1 for k, size in enumerate(sizes)]
  return np.broadcast_to(labels.reshape(shape), sizes)


def _split(labels: np.ndarray) -> list[Axis]:
  """The axes of an array of labels; those along which labels repeat are left unlabelled."""
  out: list[Axis] = [None] * labels.ndim
  dims = list(range(labels.ndim))
  for dim in range(labels.ndim):
    first = labels.take([0], dim)
    if len(dims) > 1 and (labels == first).all():
      labels = first
      dims.remove(dim)
  labels = labels.squeeze(tuple(k for k in range(len(out)) if k not in dims))
  for position, dim in enumerate(dims):
    out[dim] = labels if len(dims) == 1 else Part(labels, position)
  return out


def reshape_params(eqn, inputs, outputs, kept):
  """The new shape; None, at dense shapes, where elements are labelled together."""
  if has_parts(inputs[0]) or has_parts(outputs[0]):
    return None
  return {**eqn.params, "new_sizes": resized(eqn.params["new_sizes"], outputs[0], kept)}


def transpose(classes, eqn, inputs):
  """Permutes the axes."""
  return [tuple(inputs[0][k] for k in eqn.params["permutation"])]


def squeeze(classes, eqn, inputs):
  """Drops axes of one element, which must then always be there."""
  dropped = eqn.params["dimensions"]
  freeze_axes(classes, tuple(inputs[0][k] for k in dropped), _SINGLE)
  return [tuple(labels for k, labels in enumerate(inputs[0]) if k not in dropped)]


def pad(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Filler elements are channels too: they have fresh labels until something meets them."""
  out = []
  for labels, (low, high, interior) in zip(inputs[0], eqn.params["padding_config"], strict=True):
    if labels is None or (low == 0 and high == 0 and interior == 0):
      out.append(labels)
    elif low < 0 or high < 0 or interior != 0:
      classes.freeze(labels, "cropped or dilated by `pad`")
      out.append(None)
    else:
      out.append(np.concatenate([classes.fresh(int(low)), labels, classes.fresh(int(high))]))
  return [tuple(out)]


def pad_params(eqn, inputs, outputs, kept):
  """The filler that is left on each side."""
  config = []
  for labels, (low, high, interior) in zip(outputs[0], eqn.params["padding_config"], strict=True):
    if labels is not None and (low or high):
      flags = kept(labels)
      low, high = int(flags[:low].sum()), int(flags[len(flags) - high :].sum())
    config.append((low, high, interior))
  return {**eqn.params, "padding_config": tuple(config)}


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


def source(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Values made from a shape alone have fresh labels: what they meet decides which are kept."""
  return [
    tuple(classes.fresh(n) if isinstance(n, int) else None for n in out.aval.shape)
    for out in eqn.outvars
  ]


def source_params(eqn, inputs, outputs, kept):
  """None: the same values are made as in the dense network, and cut."""
  return None


def concatenate(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Puts labels one after the other; other axes are unified."""
  along = eqn.params["dimension"]
  out = []
  for axis in range(len(inputs[0])):
    parts = [axes[axis] for axes in inputs]
    if axis != along:
      merged = parts[0]
      for labels in parts[1:]:
        merged = merge(classes, merged, labels, "`concatenate` with an axis without channels")
      out.append(merged)
    elif all(labels is None for labels in parts):
      out.append(None)
    else:  # an unlabelled part (an input image, say) keeps all of its elements
      filled = []
      for var, labels in zip(eqn.invars, parts, strict=True):
        if labels is None:
          labels = classes.fresh(var.aval.shape[axis])
          classes.freeze(labels, "concatenated part without channels")
        filled.append(labels)
      out.append(np.concatenate(filled))
  return [tuple(out)]


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
    if starts is None or k in dims.operand_batching_dims:
      classes.freeze(labels, "selected by `gather`")
    elif k in sliced and (starts == starts.flat[0]).all():
      start = int(starts.flat[0])
      out[dims.offset_dims[sliced.index(k)]] = labels[start : start + sizes[k]]
    elif k in sliced:
      classes.freeze(labels, "selected by `gather`")
    elif starts.size == 1:
      classes.freeze(labels[starts.ravel()], _SINGLE)
    elif any(out[axis] is not None for axis in indexed):  # an element would have two labels
      freeze_axes(classes, (*out, labels), "several channel axes selected by `gather`")
    else:
      for axis, chosen in zip(indexed, _split(labels[starts]), strict=True):
        out[axis] = chosen
  return [tuple(out)]


def gather_params(eqn, inputs, outputs, kept):
  """Whole axes are taken at their new size; None, at dense shapes, where elements are selected."""
  shape, sizes = eqn.invars[0].aval.shape, list(eqn.params["slice_sizes"])
  for k, labels in enumerate(inputs[0]):
    if labels is not None and sizes[k] == shape[k]:
      sizes[k] = int(kept(labels).sum())
    elif labels is not None and not kept(labels).all():
      return None
  return {**eqn.params, "slice_sizes": tuple(sizes)}
