"""The table of rules for how each JAX primitive carries channel labels.

To support a new primitive, add its rule to `RULES`. A rule has two halves:

* `propagate(classes, eqn, inputs) -> outputs` maps the operands' axes to the results' axes and
  merges or freezes label classes.
* `params(eqn, inputs, outputs, kept) -> dict | None` returns the equation's parameters after
  channels have been removed, where `kept(labels)` is a bool array that says which elements of an
  axis remain. If it returns None, the equation is evaluated at its dense shapes and the results are
  cut.

A primitive without a rule freezes every label that reaches it. So an unknown operation leaves fewer
removable channels in a network, but never makes a pruned network wrong.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gatprune_jax.channels.rules import contraction, indexing, shape
from gatprune_jax.channels.rules import reshape as reshape_rules
from gatprune_jax.channels.rules.axes import Axes, Kept, freeze_axes, merge, unlabelled
from gatprune_jax.channels.rules.classes import LabelClasses


def unchanged(eqn, inputs, outputs, kept):
  """Returns the parameters as they are, for equations whose parameters do not depend on sizes."""
  return eqn.params


class Rule(NamedTuple):
  """The two halves of a primitive's rule, which the module's docstring describes."""

  propagate: Callable[..., list[Axes]]
  params: Callable[[Any, list[Axes], list[Axes], Kept], dict | None] = unchanged
  # Index of an operand whose value is the fourth argument of `propagate`; the value is None if it
  # is not known before the program runs.
  value_of: int | None = None


def freeze_everything(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Freezes all labels of the operands, because the primitive has no rule."""
  for axes in inputs:
    freeze_axes(classes, axes, f"used by `{eqn.primitive.name}`, which has no rule for channels")
  return unlabelled(eqn)


def _elementwise(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Unifies, axis by axis, operands of the full size; freezes size-1 axes that are broadcast."""
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
      if operand_shape[axis] != size:  # size 1: the element is broadcast to all others
        if labels is not None:
          classes.freeze(labels, f"broadcast by `{name}` over a whole axis")
      elif started:
        merged = merge(classes, merged, labels, f"`{name}` with an axis that is not a channel axis")
      else:
        merged, started = labels, True
    out.append(merged)
  return [tuple(out)] * len(eqn.outvars)


def _reduce(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Freezes the reduced axes, because removing a channel would change statistics over channels."""
  return [_without_axes(classes, eqn, inputs[0], eqn.params["axes"])]


def _without_axes(classes: LabelClasses, eqn, axes: Axes, reduced: Sequence[int]) -> Axes:
  for axis in reduced:
    if axes[axis] is not None:
      classes.freeze(axes[axis], f"statistics over channels by `{eqn.primitive.name}`")
  return tuple(labels for k, labels in enumerate(axes) if k not in reduced)


def _collective(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Drops and freezes the reduced axes that a collective operation gives by number.

  A named axis, of devices or of a `vmap` around the traced function, is no axis of the operands, so
  the operation is element-wise for channels. The axis of a `vmap` inside the traced function is an
  axis of the operands, is given by its number, and is reduced.
  """
  reduced = [axis for axis in eqn.params["axes"] if isinstance(axis, int)]
  return [_without_axes(classes, eqn, axes, reduced) for axes in inputs]


def _reduce_window(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Keeps the labels of an axis if each element is its own window; freezes all other axes."""
  names = ("window_dimensions", "window_strides", "padding", "base_dilation")
  out = []
  for labels, *window in zip(inputs[0], *(eqn.params[name] for name in names), strict=True):
    if labels is not None and window != [1, 1, (0, 0), 1]:
      classes.freeze(labels, f"`{eqn.primitive.name}` over channels")
      labels = None
    out.append(labels)
  return [tuple(out)]


def _identity(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Gives every result the axes of its operand."""
  return list(inputs)


def _along(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Freezes the axis of a cumulative operation, whose results depend on other elements of it."""
  axis = eqn.params["axis"]
  if inputs[0][axis] is not None:
    classes.freeze(inputs[0][axis], f"`{eqn.primitive.name}` over channels")
  return [(*inputs[0][:axis], None, *inputs[0][axis + 1 :])]


def _bitcast(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  same_width = len(inputs[0]) == len(eqn.outvars[0].aval.shape)
  return (_elementwise if same_width else freeze_everything)(classes, eqn, inputs)


ELEMENTWISE = """
  abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp conj
  convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag
  integer_pow is_finite le lgamma log log1p logistic lt max min mul name ne neg nextafter not or
  population_count pow real reduce_precision rem round rsqrt select_n shift_left
  shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh
  xor
""".split()
REDUCTIONS = """
  reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin
""".split()
COLLECTIVES = "psum pmax pmin".split()
WINDOWS = "reduce_window_sum reduce_window_max reduce_window_min".split()
CUMULATIVE = "cumsum cumprod cummax cummin cumlogsumexp".split()
SOURCES = "iota random_bits rng_bit_generator rng_uniform".split()

RULES: dict[str, Rule] = {
  **{name: Rule(_elementwise) for name in ELEMENTWISE},
  **{name: Rule(_reduce) for name in REDUCTIONS},
  **{name: Rule(_collective) for name in COLLECTIVES},
  **{name: Rule(_reduce_window) for name in WINDOWS},
  **{name: Rule(_along) for name in CUMULATIVE},
  **{name: Rule(shape.source, shape.source_params) for name in SOURCES},
  "optimization_barrier": Rule(_identity),
  "device_put": Rule(_identity),
  "reshard": Rule(_identity),  # appears with random numbers on several devices
  "bitcast_convert_type": Rule(_bitcast),
  "broadcast_in_dim": Rule(shape.broadcast_in_dim, shape.broadcast_in_dim_params),
  "reshape": Rule(reshape_rules.reshape, reshape_rules.reshape_params),
  "transpose": Rule(shape.transpose),
  "squeeze": Rule(shape.squeeze),
  "pad": Rule(shape.pad, shape.pad_params),
  "slice": Rule(indexing.slice_, indexing.slice_params),
  "split": Rule(indexing.split, indexing.split_params),
  "rev": Rule(indexing.rev),
  "dynamic_slice": Rule(indexing.dynamic_slice, indexing.dynamic_slice_params),
  "concatenate": Rule(shape.concatenate),
  "gather": Rule(indexing.gather, indexing.gather_params, value_of=1),
  "conv_general_dilated": Rule(contraction.conv, contraction.conv_params),
  "dot_general": Rule(contraction.dot),
}
