"""Propagates channel labels through a jaxpr and through the bodies of the calls inside it."""

from collections.abc import Callable, Iterator
import functools
from typing import Any, NamedTuple

import jax
from jax.extend import core as jex_core
import numpy as np

from gatprune_jax.channels.rules import reductions
from gatprune_jax.channels.rules import table as rules
from gatprune_jax.channels.rules.axes import (
  Axes,
  JointAxis,
  couple,
  freeze_axes,
  has_parts,
  merge_all,
)
from gatprune_jax.channels.rules.classes import LabelClasses
from gatprune_jax.channels.rules.contraction import (
  Contraction,
  conv_contraction,
  dot_contraction,
)
from gatprune_jax.channels.rules.reductions import Quotient, Total
from gatprune_jax.channels.tracing.liveness import (
  Live,
  every_equation,
  has_layer,
  live_equations,
  read_inputs,
)
from gatprune_jax.channels.tracing.loops import loop_sizes, of_body, of_condition

# Calls whose bodies are labelled too -> the equation parameter that holds the body.
CALLS = {
  "jit": "jaxpr",
  "pjit": "jaxpr",
  "closed_call": "call_jaxpr",
  "core_call": "call_jaxpr",
  "checkpoint": "jaxpr",
  "remat": "jaxpr",
  "remat2": "jaxpr",
  "custom_jvp_call": "call_jaxpr",
  "custom_vjp_call": "call_jaxpr",
}
# Calls that have a derivative rule of their own.
WITH_DERIVATIVE = ("custom_jvp_call", "custom_vjp_call")
# Primitives whose rules accept axes that are labelled together.
_CARRY_PARTS = ("reshape", "transpose", "slice", "split", "squeeze", "gather")
# Primitives whose result is the same weights as their operand. A layer whose kernel passed only
# through these primitives is still named after the variable.
_SAME_WEIGHTS = ("convert_element_type", "transpose", "copy", "stop_gradient")


class Source(NamedTuple):
  """Where a value comes from."""

  is_weight: bool  # computed from variables and constants alone
  is_shared: bool  # computed without what differs between the examples of a batch
  leaf: int | None = None  # index of the variable it equals, up to dtype and transposition
  total: Total | None = None  # of which elements it is the sum, up to its shape
  # Returns the value if literals and captured constants alone determine it, else None.
  value: Callable[[], np.ndarray | None] = lambda: None


class Step(NamedTuple):
  """One equation with the labels of its operands and results."""

  eqn: Any
  arriving: list[Axes]  # axes of the operands as earlier equations returned them
  # Axes of the operands as this equation's rule takes them. Joint labels are coupled, which leaves
  # one labelled axis, unless the rule accepts joint labels.
  inputs: list[Axes]
  outputs: list[Axes]
  contraction: Contraction | None  # for convolutions and dot products
  leaf: int | None  # index of the variable that is the contraction's kernel
  body: "Program | None"  # the labelled body of a call or of a loop
  is_shared: bool = False  # computed without what differs between the examples of a batch
  reduced: tuple[int, ...] = ()  # labelled axes that a reduction takes together
  quotient: Quotient | None = None  # the sum that this equation divides by a constant
  branches: tuple["Program", ...] = ()  # the labelled branches of a `cond` without layers
  condition: "Program | None" = None  # of a `while`; no channel of its operands is removed


class Program(NamedTuple):
  """A labelled jaxpr."""

  jaxpr: jex_core.Jaxpr
  consts: list[Any]
  const_axes: list[Axes]
  steps: list[Step]  # of the equations that the results need
  used: tuple[bool, ...]  # for each result, whether it is needed; the others are not computed
  outputs: list[Axes]
  out_sources: list[Source]

  def contractions(self) -> list[Step]:
    """Returns all convolutions and dot products in execution order, those inside calls too."""
    return [step for step in self.all_steps() if step.contraction is not None]

  def all_steps(self) -> Iterator[Step]:
    """Yields the steps in execution order, with those of a call's body instead of the call."""
    for step in self.steps:
      if step.body is not None:
        yield from step.body.all_steps()
        continue
      for branch in step.branches:
        yield from branch.all_steps()
      yield step


def label(
  closed: jex_core.ClosedJaxpr | jex_core.Jaxpr,
  classes: LabelClasses,
  inputs: list[Axes],
  sources: list[Source],
  used: tuple[bool, ...] | None = None,
  with_dead_code: bool = False,
) -> Program:
  """Labels every value of a jaxpr that its results need, given the axes of its inputs.

  Captured constants are treated like variables: each axis gets fresh labels.

  Args:
    closed: the jaxpr.
    classes: the label classes; labels are added, tied and frozen in place.
    inputs: for each input, the labels of its axes.
    sources: for each input, where that input comes from.
    used: for each result, whether it is needed; None: all are.
    with_dead_code: whether values that no result needs are labelled too.
  """
  jaxpr, consts = getattr(closed, "jaxpr", closed), list(getattr(closed, "consts", []))
  axes: dict[Any, Axes] = {}
  source: dict[Any, Source] = {}

  def read(var):
    if isinstance(var, jex_core.Literal):
      return (None,) * np.ndim(var.val), Source(True, True, value=lambda: var.val)
    return axes[var], source[var]

  const_axes = [
    tuple(classes.fresh(size) if isinstance(size, int) else None for size in var.aval.shape)
    for var in jaxpr.constvars
  ]
  for var, var_axes, const in zip(jaxpr.constvars, const_axes, consts, strict=True):
    axes[var], source[var] = var_axes, Source(True, True, value=functools.partial(_concrete, const))
  for var, var_axes, var_source in zip(jaxpr.invars, inputs, sources, strict=True):
    axes[var], source[var] = var_axes, var_source

  steps = []
  used = (True,) * len(jaxpr.outvars) if used is None else used
  for live in every_equation(jaxpr) if with_dead_code else live_equations(jaxpr, used):
    eqn = live.eqn
    read_in = [read(var) for var in eqn.invars]
    step, out_sources = _label_equation(
      live, classes, [a for a, _ in read_in], [s for _, s in read_in], with_dead_code
    )
    steps.append(step)
    for var, var_axes, var_source in zip(eqn.outvars, step.outputs, out_sources, strict=True):
      axes[var], source[var] = var_axes, var_source

  unused = lambda var: ((None,) * len(var.aval.shape), Source(False, False))
  read_out = [
    read(var) if flag else unused(var) for var, flag in zip(jaxpr.outvars, used, strict=True)
  ]
  return Program(
    jaxpr, consts, const_axes, steps, used, [a for a, _ in read_out], [s for _, s in read_out]
  )


def _label_equation(
  live: Live,
  classes: LabelClasses,
  inputs: list[Axes],
  sources: list[Source],
  with_dead_code: bool,
) -> tuple[Step, list[Source]]:
  eqn, name = live.eqn, live.eqn.primitive.name
  if name == "scan" or (name == "while" and _is_followed(eqn, inputs)):
    condition = _label_condition(eqn, classes, inputs) if name == "while" else None
    body = _label_loop(eqn, classes, inputs, sources, with_dead_code)
    _, num_carry = loop_sizes(eqn)
    carry, stacked = body.outputs[:num_carry], body.outputs[num_carry:]
    outputs = [*carry, *((None, *axes) for axes in stacked)]
    step = Step(eqn, inputs, inputs, outputs, None, None, body, condition=condition)
    return step, [Source(False, False)] * len(outputs)
  if name == "cond" and not any(map(has_layer, eqn.params["branches"])):
    branches, outputs = _label_branches(eqn, classes, inputs, sources, with_dead_code)
    step = Step(eqn, inputs, inputs, outputs, None, None, None, branches=branches)
    return step, [Source(False, False)] * len(outputs)
  if name in CALLS:
    # A derivative rule is one of all results.
    used = None if name in WITH_DERIVATIVE else live.used
    body = label(eqn.params[CALLS[name]], classes, inputs, sources, used, with_dead_code)
    return Step(eqn, inputs, inputs, body.outputs, None, None, body), body.out_sources

  arriving = inputs
  if name not in _CARRY_PARTS:
    inputs = [couple(classes, axes) if has_parts(axes) else axes for axes in inputs]
  rule = rules.RULES.get(name)
  if rule is None:
    outputs = rules.freeze_everything(classes, eqn, inputs)
  elif rule.value_of is not None:
    outputs = rule.propagate(classes, eqn, inputs, sources[rule.value_of].value())
  else:
    outputs = rule.propagate(classes, eqn, inputs)
  contraction, leaf = None, None
  if name == "conv_general_dilated":
    contraction = conv_contraction(eqn)
  elif name == "dot_general":
    weights = (sources[0].is_weight, sources[1].is_weight)
    contraction = dot_contraction(classes, eqn, inputs, weights)
  if contraction is not None:
    leaf = sources[contraction.kernel].leaf
  same = sources[0].leaf if name in _SAME_WEIGHTS else None
  reduced = ()
  if name in reductions.NEUTRAL:
    reduced = tuple(axis for axis in eqn.params["axes"] if inputs[0][axis] is not None)
  quotient = reductions.divided(eqn, [(source.total, source.value) for source in sources])
  total = reductions.summed(eqn, inputs, reduced)
  if name in reductions.MOVES:
    total = sources[0].total
  is_weight = all(s.is_weight for s in sources)
  is_shared = all(s.is_shared for s in sources)
  value = functools.cache(functools.partial(_computed, eqn, sources))
  known = len(outputs) == 1 and is_weight
  out = Source(is_weight, is_shared, same, total, value if known else lambda: None)
  step = Step(eqn, arriving, inputs, outputs, contraction, leaf, None, is_shared, reduced, quotient)
  return step, [out] * len(outputs)


def _is_followed(eqn, inputs: list[Axes]) -> bool:
  """Returns whether a `while` is labelled: some operand has labels, and no layer is a condition."""
  has_labels = any(labels is not None for axes in inputs for labels in axes)
  return has_labels and not has_layer(eqn.params["cond_jaxpr"])


def _label_condition(eqn, classes: LabelClasses, inputs: list[Axes]) -> Program:
  """Labels the condition of a `while`, and freezes the channels that it reads.

  Without some channels, rounding might let the condition end the loop in another iteration.
  """
  condition = eqn.params["cond_jaxpr"]
  given = [_without_parts(classes, axes, "while") for axes in of_condition(eqn, inputs)]
  for axes, is_read in zip(given, read_inputs(condition.jaxpr), strict=True):
    if is_read:
      freeze_axes(classes, axes, "read by the condition of a `while`")
  return label(condition, classes, given, [Source(False, False)] * len(given))


def _label_loop(
  eqn, classes: LabelClasses, inputs: list[Axes], sources: list[Source], with_dead_code: bool
) -> Program:
  """Labels the body of a `scan` or `while`, in which a channel is the same in every iteration.

  The body is labelled with the axes of the loop's constants, of its first state, and of one slice
  of each array that it walks along. The labels of the state after an iteration are unified with
  those before. An axis of the state that has labels only before or only after is unlabelled, and
  the body is then labelled again.
  """
  name, program = eqn.primitive.name, eqn.params.get("jaxpr", eqn.params.get("body_jaxpr"))
  inputs, sources = of_body(eqn, inputs), of_body(eqn, sources)
  first, num_carry = loop_sizes(eqn)
  last = first + num_carry
  inputs = [_without_parts(classes, axes, name) for axes in inputs]
  freeze_axes(classes, tuple(axes[0] for axes in inputs[last:]), "walked along by `scan`")
  state = inputs[first:last]
  # What the state holds depends on the iteration; a slice of a variable is still weights.
  known = [
    *(source._replace(value=lambda: None) for source in sources[:first]),
    *[Source(False, False)] * num_carry,
    *(source._replace(total=None, value=lambda: None) for source in sources[last:]),
  ]
  while True:
    given = [*inputs[:first], *state, *(axes[1:] for axes in inputs[last:])]
    body = label(program, classes, given, known, None, with_dead_code)
    outputs = [_without_parts(classes, axes, name) for axes in body.outputs]
    reason = f"state of a `{name}` that has channels in some iterations only"
    pairs = zip(state, outputs[:num_carry], strict=True)
    after = [merge_all(classes, [old, new], reason) for old, new in pairs]
    if [[a is None for a in axes] for axes in after] == [
      [a is None for a in axes] for axes in state
    ]:
      return body._replace(outputs=[*state, *outputs[num_carry:]])
    state = after


def _label_branches(
  eqn, classes: LabelClasses, inputs: list[Axes], sources: list[Source], with_dead_code: bool
) -> tuple[tuple[Program, ...], list[Axes]]:
  """Labels the branches of a `cond`, whose results have the same channels whichever is taken.

  Returns:
    The labelled branches, and the axes of the results.
  """
  given = [_without_parts(classes, axes, "cond") for axes in inputs[1:]]  # without the index
  branches = tuple(
    label(branch, classes, given, sources[1:], None, with_dead_code)
    for branch in eqn.params["branches"]
  )
  reason = "result of a `cond` that has channels in some branches only"
  outputs = []
  for results in zip(*(branch.outputs for branch in branches), strict=True):
    whole = [_without_parts(classes, axes, "cond") for axes in results]
    outputs.append(merge_all(classes, whole, reason))
  return branches, outputs


def _without_parts(classes: LabelClasses, axes: Axes, name: str) -> Axes:
  """Freezes the channels that are split over several axes, and returns these axes unlabelled."""
  if not has_parts(axes):
    return axes
  parts = tuple(axis for axis in axes if isinstance(axis, JointAxis))
  freeze_axes(classes, parts, f"split over several axes in a `{name}`")
  return tuple(None if isinstance(axis, JointAxis) else axis for axis in axes)


def _concrete(const: Any) -> np.ndarray | None:
  is_key = jax.dtypes.issubdtype(getattr(const, "dtype", None), jax.dtypes.prng_key)
  return None if is_key or isinstance(const, jax.core.Tracer) else np.asarray(const)


def _computed(eqn, sources: list[Source]) -> np.ndarray | None:
  """Returns the value of an equation's result, or None if an operand's value is unknown.

  The value is also None if a size is symbolic.
  """
  values = [source.value() for source in sources]
  sizes = [size for var in (*eqn.invars, *eqn.outvars) for size in var.aval.shape]
  is_symbolic = eqn.primitive.name == "dim_as_value" or not all(isinstance(n, int) for n in sizes)
  if is_symbolic or any(value is None for value in values):
    return None
  with jax.ensure_compile_time_eval():
    return _concrete(eqn.primitive.bind(*values, **eqn.params))
