"""Rules of convolutions and dot products, the layers of a network; see `rules`."""

from typing import NamedTuple

from gatprune_jax.channels.axes import UNLABELLED, WINDOW, Axes, Axis, merge
from gatprune_jax.channels.classes import LabelClasses


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
  # An einsum may contract space together with channels: the pair with labels on both sides.
  pairs = [
    (a, b)
    for a, b in zip(contract[other], contract[kernel], strict=True)
    if inputs[other][a] is not None and inputs[kernel][b] is not None
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


def conv(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Unifies the input's channels with the kernel's; other groups than depthwise are frozen."""
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


def conv_params(eqn, inputs, outputs, kept):
  """A depthwise convolution has as many groups as channels are left."""
  features = inputs[0][eqn.params["dimension_numbers"].lhs_spec[1]]
  if eqn.params["feature_group_count"] == 1 or features is None:
    return eqn.params
  return {**eqn.params, "feature_group_count": int(kept(features).sum())}


def dot(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Unifies contracted axes and batch axes; the free ones pass through."""
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
