"""Rules for convolutions and dot products, the layers of a network.

The functions `conv` and `dot` return the labelled axes of a layer's result, given those of its
operands, and merge or freeze label classes. `conv_params` returns a convolution's parameters for
the channels that remain. `Contraction` says where the channels of a layer are.
"""

from typing import NamedTuple

import numpy as np

from gatprune_jax.channels.rules.axes import UNLABELLED, WINDOW, Axes, Axis, merge
from gatprune_jax.channels.rules.classes import LabelClasses


class Contraction(NamedTuple):
  """The axes of a convolution or dot product that hold channels.

  A dot product may sum over several axes of channels and produce several of them. An example is
  attention, whose heads and whose elements of a head are channels: the queries are produced on both
  axes, and the projection after attention sums over both. One axis of each kind is the main one.

  Attributes:
    operand: index of the operand that holds the layer's input, 0 or 1.
    axis: the input's main axis of channels, or None. The layer sums over this axis, unless
      `by_group` is true.
    kernel: index of the operand that is treated as the weights, 0 or 1.
    kernel_in: the kernel's main axis of input channels, or None.
    kernel_out: the kernel's main axis of output channels, or None.
    out: the result's main axis of output channels, or None.
    by_group: whether a grouped convolution loses whole groups, as a depthwise one does. The layer
      then passes its channels through instead of summing over all of them.
    further_in: the input's and the kernel's axis of each further pair that the layer sums over.
    further_out: the kernel's and the result's axis of each further axis of output channels.
  """

  operand: int
  axis: int | None
  kernel: int
  kernel_in: int | None
  kernel_out: int | None
  out: int | None
  by_group: bool = False
  further_in: tuple[tuple[int, int], ...] = ()
  further_out: tuple[tuple[int, int], ...] = ()


def goes_by_group(eqn) -> bool:
  """Returns whether a grouped convolution loses whole groups.

  Two ways of cutting leave groups of equal size. True: whole groups are removed, each with its
  input and output channels, as in a depthwise convolution. False: every group loses the same input
  channels and equally many output channels. The way that leaves more channels to decide on
  separately is chosen.

  The derivative with respect to the kernel of a grouped convolution has groups along the batch
  instead, where the input channels then are. It is cut as the convolution itself.
  """
  dims = eqn.params["dimension_numbers"]
  if (groups := eqn.params["batch_group_count"]) > 1:
    per_input = eqn.invars[0].aval.shape[dims.lhs_spec[0]] // groups
  else:
    groups = eqn.params["feature_group_count"]
    per_input = eqn.invars[1].aval.shape[dims.rhs_spec[1]]
  per_output = eqn.invars[1].aval.shape[dims.rhs_spec[0]] // groups
  return groups > 1 and groups >= per_input + per_output


def conv_contraction(eqn) -> Contraction:
  """Returns the channel axes of a convolution, from its dimension numbers."""
  dims = eqn.params["dimension_numbers"]
  by_group = eqn.params["feature_group_count"] > 1 and goes_by_group(eqn)
  return Contraction(
    operand=0,
    axis=dims.lhs_spec[1],
    kernel=1,
    kernel_in=None if by_group else dims.rhs_spec[1],
    kernel_out=dims.rhs_spec[0],
    out=dims.out_spec[1],
    by_group=by_group,
  )


def dot_contraction(
  classes: LabelClasses, eqn, inputs: list[Axes], is_weight: tuple[bool, bool]
) -> Contraction:
  """Returns the channel axes of a dot product.

  The kernel is the operand that is computed from weights alone. If neither or both operands are,
  the right operand is the kernel.

  Args:
    classes: the label classes, after those of the operands were unified or frozen.
    eqn: the equation of the dot product.
    inputs: the labelled axes of both operands.
    is_weight: for each operand, whether it is computed from variables and constants alone.
  """
  contract, batch = eqn.params["dimension_numbers"]
  kernel = 0 if is_weight == (True, False) else 1
  other = 1 - kernel
  pairs = [(pair[other], pair[kernel]) for pair in _summed_pairs(classes, eqn, inputs)]
  free = [
    [k for k in range(len(inputs[side])) if k not in contract[side] and k not in batch[side]]
    for side in (0, 1)
  ]
  out_axes = [(0, k) for k in free[0]] + [(1, k) for k in free[1]]
  labelled = [(side, k) for side, k in out_axes if inputs[side][k] is not None]
  kernel_out = [(side, k) for side, k in labelled if side == kernel]
  produced = (kernel_out or labelled)[-1:]
  place = lambda side_and_axis: len(batch[0]) + out_axes.index(side_and_axis)
  # A product of two values, such as the scores of attention, produces no channels on other axes.
  further = kernel_out[:-1] if is_weight[kernel] else []
  return Contraction(
    operand=other,
    axis=pairs[-1][0] if pairs else None,
    kernel=kernel,
    kernel_in=pairs[-1][1] if pairs else None,
    kernel_out=kernel_out[-1][1] if kernel_out else None,
    out=place(produced[0]) if produced else None,
    further_in=tuple(pairs[:-1]),
    further_out=tuple((axis, place((side, axis))) for side, axis in further),
  )


def _summed_pairs(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[tuple[int, int]]:
  """Returns the axes of both operands along which a dot product sums over channels.

  An einsum may contract space together with channels. Only a pair of contracted axes that are
  labelled in both operands holds channels. Pairs that are not frozen come last.
  """
  contract, _ = eqn.params["dimension_numbers"]
  pairs = [
    (a, b)
    for a, b in zip(*contract, strict=True)
    if inputs[0][a] is not None and inputs[1][b] is not None
  ]
  return sorted(pairs, key=lambda pair: (not classes.are_frozen(inputs[0][pair[0]]), pair))


def conv(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Unifies the input's channels with the kernel's and keeps all groups equal in size.

  The axis of the batch keeps its labels. It has labels in the derivative with respect to a kernel,
  where the channels take the place of the batch and the batch is summed over, and where the input
  of a convolution is a variable.
  """
  lhs, rhs = inputs
  dims, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
  batch, features = (lhs[axis] for axis in dims.lhs_spec[:2])
  kernel_out, kernel_in = (rhs[axis] for axis in dims.rhs_spec[:2])
  for k in dims.lhs_spec[2:]:
    if lhs[k] is not None:
      classes.freeze(lhs[k], "space of a convolution")
  for k in dims.rhs_spec[2:]:
    if rhs[k] is not None:
      classes.freeze(rhs[k], WINDOW)
  if (batch_groups := eqn.params["batch_group_count"]) > 1:
    merge(classes, features, kernel_in, UNLABELLED)
    batch = _grouped(classes, eqn, batch, kernel_out, batch_groups)
  elif goes_by_group(eqn):
    if kernel_in is not None:
      classes.freeze(kernel_in, WINDOW)
    _grouped(classes, eqn, features, kernel_out, groups)
  else:
    merge(classes, features, None if kernel_in is None else np.tile(kernel_in, groups), UNLABELLED)
    if groups > 1 and kernel_out is not None:
      classes.balance(kernel_out.reshape(groups, -1))
  out: list[Axis] = [None] * len(lhs)
  out[dims.out_spec[0]], out[dims.out_spec[1]] = batch, kernel_out
  return [tuple(out)]


def _grouped(classes: LabelClasses, eqn, inputs: Axis, outputs: Axis, groups: int) -> Axis:
  """Ties the channels of a convolution's groups, and returns the labels of one group's inputs.

  Args:
    classes: the label classes.
    eqn: the convolution.
    inputs: labels of the input channels of all groups in turn, or None.
    outputs: labels of the output channels of all groups in turn, or None.
    groups: number of groups.
  """
  if goes_by_group(eqn):
    per_group = [_groups_as_one(classes, labels, groups) for labels in (inputs, outputs)]
    merge(classes, *per_group, UNLABELLED)
    return None
  if outputs is not None:
    classes.balance(outputs.reshape(groups, -1))
  if inputs is None:
    return None
  rows = inputs.reshape(groups, -1)
  for other in rows[1:]:
    classes.unify(rows[0], other)
  return rows[0]


def _groups_as_one(classes: LabelClasses, labels: Axis, groups: int) -> Axis:
  """Unifies the labels within each group and returns one label per group, int64 `[groups]`."""
  if labels is None:
    return None
  columns = labels.reshape(groups, -1).T
  for other in columns[1:]:
    classes.unify(columns[0], other)
  return columns[0]


def conv_params(eqn, inputs, outputs, kept):
  """Returns the parameters with the number of groups that remain, if whole groups are removed."""
  dims = eqn.params["dimension_numbers"]
  name = "batch_group_count" if eqn.params["batch_group_count"] > 1 else "feature_group_count"
  grouped = inputs[0][dims.lhs_spec[0 if name == "batch_group_count" else 1]]
  if grouped is None or not goes_by_group(eqn):
    return eqn.params
  return {**eqn.params, name: int(kept(grouped).sum()) * eqn.params[name] // len(grouped)}


def dot(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Unifies contracted axes and batch axes; all other axes keep their labels.

  An example of several axes is the projection after attention, which sums over the heads and over
  the elements of each head: whole heads are removed, and the same elements from all other heads.
  """
  contract, batch = eqn.params["dimension_numbers"]
  for a, b in zip(*contract, strict=True):
    merge(classes, inputs[0][a], inputs[1][b], UNLABELLED)
  out = [
    merge(classes, inputs[0][a], inputs[1][b], "batch of a dot product")
    for a, b in zip(*batch, strict=True)
  ]
  free = [
    [labels for k, labels in enumerate(axes) if k not in contract[side] and k not in batch[side]]
    for side, axes in enumerate(inputs)
  ]
  out += free[0] + free[1]
  return [tuple(out)]
