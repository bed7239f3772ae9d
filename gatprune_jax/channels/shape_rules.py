"""Rules of operations that move, repeat or select elements; see `rules`."""

import math

import numpy as np

from gatprune_jax.channels.axes import Axes, Axis, freeze_axes, merge, resized, unlabelled
from gatprune_jax.channels.classes import LabelClasses


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
  """Carries an axis through insertions of 1, and tiles it where a flatten merges it with space."""
  (axes, old), new = (inputs[0], eqn.invars[0].aval.shape), eqn.params["new_sizes"]
  blocks = None if eqn.params["dimensions"] is not None else _reshape_blocks(old, new)
  if blocks is None:
    freeze_axes(classes, axes, "reshape that is neither a flatten nor an insertion of 1")
    return unlabelled(eqn)
  out: list[Axis] = [None] * len(new)
  for left, right in blocks:
    labelled = [k for k in left if axes[k] is not None]
    wide = [k for k in right if new[k] != 1]
    if not labelled or not right:
      continue
    sizes = [old[k] for k in left]
    if len(wide) > 1 or len(labelled) > 1 or not all(isinstance(s, int) for s in sizes):
      for k in labelled:
        classes.freeze(axes[k], "reshape that splits a channel axis or merges it with another")
      continue
    where = left.index(labelled[0])
    tiled = np.tile(
      np.repeat(axes[labelled[0]], math.prod(sizes[where + 1 :])), math.prod(sizes[:where])
    )
    out[wide[0] if wide else right[-1]] = tiled
  return [tuple(out)]


def reshape_params(eqn, inputs, outputs, kept):
  """The new shape."""
  return {**eqn.params, "new_sizes": resized(eqn.params["new_sizes"], outputs[0], kept)}


def transpose(classes, eqn, inputs):
  """Permutes the axes."""
  return [tuple(inputs[0][k] for k in eqn.params["permutation"])]


def squeeze(classes, eqn, inputs):
  """Drops axes of one element."""
  dropped = eqn.params["dimensions"]
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
  """A run of channels stays labelled; every other one of them does not."""
  p = eqn.params
  strides = p["strides"] or (1,) * len(inputs[0])
  out = []
  for labels, start, limit, stride in zip(
    inputs[0], p["start_indices"], p["limit_indices"], strides, strict=True
  ):
    if labels is not None and stride != 1:
      classes.freeze(labels, "strided slice of a channel axis")
      labels = None
    out.append(None if labels is None else labels[start:limit])
  return [tuple(out)]


def slice_params(eqn, inputs, outputs, kept):
  """Where the run begins and ends among the kept channels."""
  start, limit = list(eqn.params["start_indices"]), list(eqn.params["limit_indices"])
  for axis, labels in enumerate(outputs[0]):
    if labels is not None:
      before = np.concatenate([[0], np.cumsum(kept(inputs[0][axis]))])
      start[axis], limit[axis] = int(before[start[axis]]), int(before[limit[axis]])
  return {**eqn.params, "start_indices": tuple(start), "limit_indices": tuple(limit)}


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


def gather(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Indexing of other axes (`x[:, ::2]` with a symbolic batch size) carries whole axes along."""
  dims, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
  shape = eqn.invars[0].aval.shape
  out: list[Axis] = [None] * len(eqn.outvars[0].aval.shape)
  indexed = {*dims.collapsed_slice_dims, *dims.operand_batching_dims}
  sliced = [k for k in range(len(shape)) if k not in indexed]
  for k, labels in enumerate(inputs[0]):
    if labels is None:
      continue
    if k in sliced and k not in dims.start_index_map and sizes[k] == shape[k]:
      out[dims.offset_dims[sliced.index(k)]] = labels
    else:
      classes.freeze(labels, "indexed by `gather`")
  freeze_axes(classes, inputs[1], "used as indices of `gather`")
  return [tuple(out)]


def gather_params(eqn, inputs, outputs, kept):
  """Whole axes are taken at their new size."""
  shape = resized(eqn.invars[0].aval.shape, inputs[0], kept)
  sizes = tuple(
    old if labels is None or old == 1 else new
    for old, new, labels in zip(eqn.params["slice_sizes"], shape, inputs[0], strict=True)
  )
  return {**eqn.params, "slice_sizes": sizes}
