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

from collections.abc import Callable
from typing import Any, NamedTuple

from gatprune_jax.channels.rules import along, contraction, indexing, reductions, shape, writing
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
  name = eqn.primitive.name
  why = WITHOUT_RULE.get(name, "has no rule for channels")
  for axes in inputs:
    freeze_axes(classes, axes, f"used by `{name}`, which {why}")
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


def _identity(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Gives every result the axes of its operand."""
  return list(inputs)


def _bitcast(classes: LabelClasses, eqn, inputs: list[Axes]) -> list[Axes]:
  """Keeps the labels if the new elements are of the same width, and freezes them otherwise."""
  same_width = len(inputs[0]) == len(eqn.outvars[0].aval.shape)
  return (_elementwise if same_width else freeze_everything)(classes, eqn, inputs)


ELEMENTWISE = """
  abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp
  clz complex conj convert_element_type copy cos cosh digamma div eq eq_to erf erf_inv erfc exp
  exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow is_finite le le_to lgamma
  log log1p log2 logistic lt lt_to max min mul mulhi name ne neg nextafter not one_minus_square or
  polygamma polynomial population_count pow random_gamma_grad real reduce_precision
  regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic
  shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor zeta
""".split()
# These freeze what they reduce. The function of a general `reduce` has no known neutral element,
# and an index means another channel once some channels are removed.
REDUCTIONS = "reduce argmax argmin".split()
COLLECTIVES = "psum psum_invariant pmax pmin".split()
# The last three are the derivatives of a maximum over windows.
WINDOWS = """
  reduce_window reduce_window_sum reduce_window_max reduce_window_min select_and_gather_add
  select_and_scatter select_and_scatter_add
""".split()
CUMULATIVE = "cumsum cumprod cummax cummin cumlogsumexp".split()
SOURCES = "axis_index iota random_bits rng_bit_generator rng_uniform".split()
SCATTERS = "scatter scatter-add scatter-mul scatter-min scatter-max scatter-sub".split()
# Operations that return their operands, moved between devices or marked.
IDENTITIES = """
  optimization_barrier device_put reshard sharding_constraint pbroadcast pvary ppermute
""".split()

RULES: dict[str, Rule] = {
  **{name: Rule(_elementwise) for name in ELEMENTWISE},
  **{name: Rule(_identity) for name in IDENTITIES},
  **{name: Rule(along.masked_reduction) for name in reductions.NEUTRAL},
  **{name: Rule(along.reduction) for name in REDUCTIONS},
  **{name: Rule(along.collective) for name in COLLECTIVES},
  **{name: Rule(along.window) for name in WINDOWS},
  **{name: Rule(along.cumulative) for name in CUMULATIVE},
  **{name: Rule(shape.source, shape.source_params) for name in SOURCES},
  **{name: Rule(writing.scatter) for name in SCATTERS},
  "dynamic_update_slice": Rule(writing.dynamic_update_slice),
  "sort": Rule(along.sort),
  "top_k": Rule(along.top_k),
  "approx_top_k": Rule(along.top_k),
  "fft": Rule(along.fft),
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
  "stack": Rule(shape.stack),
  "unstack": Rule(shape.unstack),
  "tile": Rule(shape.tile),
  "gather": Rule(indexing.gather, indexing.gather_params, value_of=1),
  "conv_general_dilated": Rule(contraction.conv, contraction.conv_params),
  "dot_general": Rule(contraction.dot),
}

# The primitives of `jax.lax` that have no rule -> why. Their operands are frozen.
WITHOUT_RULE = {
  "cond": "chooses between programs that have layers",
  "while": "repeats a program as long as a condition with layers demands",
  **{
    name: "moves elements between devices"
    for name in ("all_gather", "all_to_all", "ragged_all_to_all", "reduce_scatter")
  },
  "custom_linear_solve": "solves for all elements together",
  **{
    name: "is for the order of execution"
    for name in ("after_all", "create_token", "dce_sink", "stage")
  },
}
