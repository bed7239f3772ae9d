"""How each JAX primitive carries channel labels: the table that a new primitive is added to.

Every axis of every array is either unlabelled (`None`: batch, space) or carries one integer
label per element. A rule has two halves:

* `propagate(classes, eqn, inputs) -> outputs` maps the operands' axes to the results' axes and
  merges or freezes label classes on the way;
* `params(eqn, inputs, outputs, kept) -> dict` gives the equation's parameters once channels are
  gone, where `kept(labels)` is a bool array that says which elements of an axis remain.

A primitive without a rule freezes every label that reaches it: an unknown operation makes a
network less prunable, never wrong.
"""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import numpy as np

from gatprune_jax.channels.classes import LabelClasses

Axis = np.ndarray | None  # int64 [size] labels, or None
Axes = tuple[Axis, ...]  # one entry per axis of an array
Kept = Callable[[np.ndarray], np.ndarray]  # labels [size] -> bool [size]

# Axes of a kernel that slide over space. Frozen, but nothing a user would want reported.
WINDOW = "window of a kernel"
UNLABELLED = "contracted with an axis that is not a channel axis: the model's input, batch or space"


class Rule(NamedTuple):
  """The two halves of a primitive's rule; see the module's docstring."""

  propagate: Callable[[LabelClasses, Any, list[Axes]], list[Axes]]
  params: Callable[[Any, list[Axes], list[Axes], Kept], dict] = lambda eqn, i, o, k: eqn.params


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


def freeze_everything(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """The rule of a primitive without a rule."""
  for axes in inputs:
    freeze_axes(classes, axes, f"used by `{eqn.primitive.name}`, which has no rule for channels")
  return unlabelled(eqn)


def resized(shape: tuple, axes: Axes, kept: Kept) -> tuple:
  """The shape of an array once the channels that are not kept are gone."""
  return tuple(
    size if labels is None else int(kept(labels).sum())
    for size, labels in zip(shape, axes, strict=True)
  )


# --- element-wise ---------------------------------------------------------------------------


def _elementwise(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Axis by axis: operands of the full size are unified, size-1 operands are broadcast."""
  shape = eqn.outvars[0].aval.shape
  name = eqn.primitive.name
  operands = [
    (var.aval.shape, axes) for var, axes in zip(eqn.invars, inputs, strict=True) if len(axes) > 0
  ]
  out = []
  for axis, size in enumerate(shape):
    merged, started = None, False
    for operand_shape, axes in operands:
      labels = axes[axis]
      if operand_shape[axis] != size:  # size 1: one element meets all of the others
        if labels is not None:
          classes.freeze(labels, f"broadcast by `{name}` over a whole axis")
      elif started:
        merged = merge(classes, merged, labels, f"`{name}` with an axis that is not a channel axis")
      else:
        merged, started = labels, True
    out.append(merged)
  return [tuple(out)] * len(eqn.outvars)


# --- shape ----------------------------------------------------------------------------------


def _broadcast_in_dim(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
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


def _broadcast_params(eqn, inputs, outputs, kept):
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


def _reshape(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
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


def _reshape_params(eqn, inputs, outputs, kept):
  return {**eqn.params, "new_sizes": resized(eqn.params["new_sizes"], outputs[0], kept)}


def _transpose(classes, eqn, inputs):
  return [tuple(inputs[0][k] for k in eqn.params["permutation"])]


def _squeeze(classes, eqn, inputs):
  dropped = eqn.params["dimensions"]
  return [tuple(labels for k, labels in enumerate(inputs[0]) if k not in dropped)]


def _pad(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
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


def _pad_params(eqn, inputs, outputs, kept):
  config = []
  for labels, (low, high, interior) in zip(outputs[0], eqn.params["padding_config"], strict=True):
    if labels is not None and (low or high):
      flags = kept(labels)
      low, high = int(flags[:low].sum()), int(flags[len(flags) - high :].sum())
    config.append((low, high, interior))
  return {**eqn.params, "padding_config": tuple(config)}


def _slice(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
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


def _slice_params(eqn, inputs, outputs, kept):
  start, limit = list(eqn.params["start_indices"]), list(eqn.params["limit_indices"])
  for axis, labels in enumerate(outputs[0]):
    if labels is not None:
      before = np.concatenate([[0], np.cumsum(kept(inputs[0][axis]))])
      start[axis], limit[axis] = int(before[start[axis]]), int(before[limit[axis]])
  return {**eqn.params, "start_indices": tuple(start), "limit_indices": tuple(limit)}


def _concatenate(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
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


def _gather(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
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


def _gather_params(eqn, inputs, outputs, kept):
  shape = resized(eqn.invars[0].aval.shape, inputs[0], kept)
  sizes = tuple(
    old if labels is None or old == 1 else new
    for old, new, labels in zip(eqn.params["slice_sizes"], shape, inputs[0], strict=True)
  )
  return {**eqn.params, "slice_sizes": sizes}


# --- reductions -----------------------------------------------------------------------------


def _reduce(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Statistics over channels change when a channel goes, so they freeze the axis."""
  reduced = eqn.params["axes"]
  for axis in reduced:
    if inputs[0][axis] is not None:
      classes.freeze(inputs[0][axis], f"statistics over channels by `{eqn.primitive.name}`")
  return [tuple(labels for k, labels in enumerate(inputs[0]) if k not in reduced)]


def _reduce_window(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  out = []
  for labels, window in zip(inputs[0], eqn.params["window_dimensions"], strict=True):
    if labels is not None and window != 1:
      classes.freeze(labels, f"`{eqn.primitive.name}` over channels")
      labels = None
    out.append(labels)
  return [tuple(out)]


# --- contractions ---------------------------------------------------------------------------


class Contraction(NamedTuple):
  """Where the channels of a convolution or dot product are.

  `axis` (of operand `operand`) is contracted, or, in a depthwise convolution, passed through;
  `kernel_in` and `kernel_out` are axes of the operand `kernel`, which holds the weights;
  `out` is the result's axis of output channels. None where there is no such axis.
  """

  operand: int
  axis: int | None
  kernel: int
  kernel_in: int | None
  kernel_out: int | None
  out: int | None
  depthwise: bool = False


def conv_contraction(eqn) -> Contraction:
  """Reads a convolution's axes off its dimension numbers."""
  dims = eqn.params["dimension_numbers"]
  depthwise = eqn.params["feature_group_count"] > 1
  return Contraction(
    operand=0,
    axis=dims.lhs_spec[1],
    kernel=1,
    kernel_in=None if depthwise else dims.rhs_spec[1],
    kernel_out=dims.rhs_spec[0],
    out=dims.out_spec[1],
    depthwise=depthwise,
  )


def dot_contraction(eqn, inputs: list[Axes], is_weight: tuple[bool, bool]) -> Contraction:
  """The weights are the operand made of variables only; where neither or both are, the right."""
  contract, batch = eqn.params["dimension_numbers"]
  kernel = 0 if is_weight == (True, False) else 1
  other = 1 - kernel
  pairs = [
    (a, b)
    for a, b in zip(contract[other], contract[kernel], strict=True)
    if inputs[other][a] is not None or inputs[kernel][b] is not None
  ]
  free = [
    [k for k in range(len(inputs[side])) if k not in contract[side] and k not in batch[side]]
    for side in (0, 1)
  ]
  out_axes = [(0, k) for k in free[0]] + [(1, k) for k in free[1]]
  labelled = [(side, k) for side, k in out_axes if inputs[side][k] is not None]
  out = len(batch[0]) + out_axes.index(labelled[-1]) if labelled else None
  kernel_out = [k for side, k in labelled if side == kernel]
  return Contraction(
    operand=other,
    axis=pairs[0][0] if pairs else None,
    kernel=kernel,
    kernel_in=pairs[0][1] if pairs else None,
    kernel_out=kernel_out[-1] if kernel_out else None,
    out=out,
  )


def _conv(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  lhs, rhs = inputs
  dims, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
  features, kernel_in, kernel_out = (
    lhs[dims.lhs_spec[1]], rhs[dims.rhs_spec[1]], rhs[dims.rhs_spec[0]],
  )  # fmt: skip
  out: list[Axis] = [None] * len(lhs)
  for k, labels in enumerate(lhs):
    if labels is not None and k != dims.lhs_spec[1]:
      classes.freeze(labels, "batch or space of a convolution")
  for k in dims.rhs_spec[2:]:
    if rhs[k] is not None:
      classes.freeze(rhs[k], WINDOW)
  if groups == 1 and eqn.params["batch_group_count"] == 1:
    merge(classes, features, kernel_in, UNLABELLED)
    out[dims.out_spec[1]] = kernel_out
  elif eqn.params["batch_group_count"] == 1 and (
    groups == eqn.invars[0].aval.shape[dims.lhs_spec[1]]
    and groups == eqn.invars[1].aval.shape[dims.rhs_spec[0]]
  ):
    if kernel_in is not None:
      classes.freeze(kernel_in, WINDOW)
    out[dims.out_spec[1]] = merge(classes, features, kernel_out, UNLABELLED)
  else:
    for labels in (features, kernel_in, kernel_out):
      if labels is not None:
        classes.freeze(labels, f"grouped convolution ({groups} groups)")
  return [tuple(out)]


def _conv_params(eqn, inputs, outputs, kept):
  features = inputs[0][eqn.params["dimension_numbers"].lhs_spec[1]]
  if eqn.params["feature_group_count"] == 1 or features is None:
    return eqn.params
  return {**eqn.params, "feature_group_count": int(kept(features).sum())}


def _dot(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  contract, batch = eqn.params["dimension_numbers"]
  pairs = list(zip(*contract, strict=True))
  labelled = [(a, b) for a, b in pairs if inputs[0][a] is not None and inputs[1][b] is not None]
  for a, b in pairs:
    merge(classes, inputs[0][a], inputs[1][b], UNLABELLED)
  if len(labelled) > 1:  # a mask on one of the axes would not remove the other
    for a, _ in labelled:
      classes.freeze(inputs[0][a], "dot product over several channel axes at once")
  out = [
    merge(classes, inputs[0][a], inputs[1][b], "batch of a dot product")
    for a, b in zip(*batch, strict=True)
  ]
  free = [
    [labels for k, labels in enumerate(axes) if k not in contract[side] and k not in batch[side]]
    for side, axes in enumerate(inputs)
  ]
  out += free[0] + free[1]
  produced = [labels for labels in free[0] + free[1] if labels is not None]
  if len(produced) > 1:
    for labels in produced:
      classes.freeze(labels, "dot product with several axes of output channels")
  return [tuple(out)]


ELEMENTWISE = """
  abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp conj
  convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag
  integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or
  population_count pow real reduce_precision rem round rsqrt select_n shift_left
  shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh
  xor
""".split()
REDUCTIONS = """
  reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin
""".split()
WINDOWS = "reduce_window_sum reduce_window_max reduce_window_min".split()

RULES: dict[str, Rule] = {
  **{name: Rule(_elementwise) for name in ELEMENTWISE},
  **{name: Rule(_reduce) for name in REDUCTIONS},
  **{name: Rule(_reduce_window) for name in WINDOWS},
  "broadcast_in_dim": Rule(_broadcast_in_dim, _broadcast_params),
  "reshape": Rule(_reshape, _reshape_params),
  "transpose": Rule(_transpose),
  "squeeze": Rule(_squeeze),
  "pad": Rule(_pad, _pad_params),
  "slice": Rule(_slice, _slice_params),
  "concatenate": Rule(_concatenate),
  "gather": Rule(_gather, _gather_params),
  "conv_general_dilated": Rule(_conv, _conv_params),
  "dot_general": Rule(_dot),
}
