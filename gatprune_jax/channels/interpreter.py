"""Evaluates a labelled program with channels masked, removed, or both.

A labelled program is a jaxpr in which `label` has given integer labels to the elements of every
axis that may hold channels.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core as jex_core
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.graph import FROZEN
from gatprune_jax.channels.rules import reductions
from gatprune_jax.channels.rules import table as rules
from gatprune_jax.channels.rules.axes import Axes, JointAxis, Kept, has_parts, resized
from gatprune_jax.channels.rules.classes import LabelClasses
from gatprune_jax.channels.tracing.derivatives import derivative, evaluate_alone
from gatprune_jax.channels.tracing.labelling import (
  WITH_DERIVATIVE,
  Program,
  Source,
  Step,
  label,
)
from gatprune_jax.channels.tracing.loops import loop_sizes, of_body
from gatprune_jax.errors import InputError

Convolution = Callable[..., jax.Array]  # (lhs, rhs, **conv_general_dilated parameters) -> result


class Interpreter:
  """One evaluation of a program.

  Args:
    classes: the label classes of the program.
    channel_of: maps labels `[size]` to channel ids `[size]`, -1 where frozen.
    keep: bool `[C, num_channels]`, which channels are not removed, with one row for each of C
      networks. The program's inputs and results hold only the channels of the row `index`. All
      rows must keep the same number of elements on every axis of the program. None: no channel is
      removed.
    mask: float `[num_channels]`; the input of every layer that sums over channels is multiplied by
      the mask. None: nothing is masked.
    conv: replaces `conv_general_dilated`, with the same operands and parameters. None: XLA's
      convolution is used.
    index: the row of keep to evaluate, an integer or a scalar array.
  """

  def __init__(
    self,
    classes: LabelClasses,
    channel_of: Callable[[np.ndarray], np.ndarray],
    keep: np.ndarray | None = None,
    mask: jax.Array | None = None,
    conv: Convolution | None = None,
    index: int | jax.Array = 0,
  ):
    self._classes = classes
    self._channel_of = channel_of
    if keep is not None:
      # Channel id -1 (frozen) indexes the appended column, so frozen elements are always kept.
      keep = np.append(keep, np.ones((len(keep), 1), bool), axis=1)
    self._keep, self._index = keep, index
    self._mask = None if mask is None else jnp.append(mask, 1.0)
    self._conv = conv
    self._sees_statistics = False  # whether a reduction over channels was evaluated

  def kept(self, labels: np.ndarray) -> np.ndarray:
    """Returns which elements of an axis remain in the first row of keep, bool `[size]`."""
    return self._kept_of_row(0)(labels)

  def _kept_of_row(self, row: int) -> Kept:
    if self._keep is None:
      return lambda labels: np.ones(len(labels), bool)
    return lambda labels: self._keep[row, self._channel_of(labels)]

  def take(self, value, axes: Axes):
    """Removes the elements that are not kept from an array; joint axes are left whole."""
    return self._at_positions(value, axes, np.flatnonzero)

  def _expand(self, value, axes: Axes):
    """Restores the dense shape that `take` cut; restored elements have arbitrary values."""
    for axis, labels in enumerate(axes):
      if isinstance(labels, np.ndarray) and not self.kept(labels).any():
        shape = (*value.shape[:axis], len(labels), *value.shape[axis + 1 :])
        value = jnp.zeros(shape, value.dtype)
    return self._at_positions(value, axes, lambda kept: np.maximum(np.cumsum(kept) - 1, 0))

  def _at_positions(self, value, axes: Axes, positions: Callable[[np.ndarray], np.ndarray]):
    """Indexes each axis that loses elements with `positions(which elements are kept)`."""
    for axis, labels in enumerate(axes):
      if isinstance(labels, np.ndarray) and not self.kept(labels).all():
        rows = np.stack([positions(kept) for kept in self._keep[:, self._channel_of(labels)]])
        index = rows[0] if len(rows) == 1 else jnp.asarray(rows)[self._index]
        value = jnp.take(value, index, axis=axis)
    return value

  def run(self, program: Program, values: list[Any]) -> list[Any]:
    """Evaluates the program on the values of its inputs and returns the values of its outputs.

    An output that is not used is None.
    """
    env: dict[Any, Any] = {}

    def read(var):
      return var.val if isinstance(var, jex_core.Literal) else env[var]

    for var, const, axes in zip(
      program.jaxpr.constvars, program.consts, program.const_axes, strict=True
    ):
      env[var] = self.take(const, axes)
    env.update(zip(program.jaxpr.invars, values, strict=True))
    for step in program.steps:
      out = self._step(step, [read(var) for var in step.eqn.invars])
      env.update(zip(step.eqn.outvars, out, strict=True))
    return [
      read(var) if used else None
      for var, used in zip(program.jaxpr.outvars, program.used, strict=True)
    ]

  def _step(self, step: Step, values: list[Any]) -> list[Any]:
    if step.body is not None:
      return self._call(step, values)
    if step.branches:
      return self._choose(step, values)
    eqn = step.eqn
    values = [
      self._cut_parts(value, *axes)
      for value, *axes in zip(values, step.arriving, step.inputs, strict=True)
    ]
    rule = rules.RULES.get(eqn.primitive.name)
    if rule is None:  # operands of such an operation are frozen, so they have the dense shapes
      return evaluate_alone(eqn, values)
    if step.contraction is not None:
      values = self._masked_operands(step, values)
    if step.reduced:
      values = self._masked_reduction(step, values)
    if step.quotient is not None and step.quotient.number is None:
      values = self._kept_numbers(step, values)
    params = eqn.params
    if self._keep is not None:
      if self._vanishes(step):
        out = eqn.outvars[0].aval
        return [jnp.zeros(resized(out.shape, step.outputs[0], self.kept), out.dtype)]
      params = self._params(rule, step)
    if params is None:
      dense = [self._expand(*pair) for pair in zip(values, step.inputs, strict=True)]
      out = evaluate_alone(eqn, dense)
      return [self.take(*pair) for pair in zip(out, step.outputs, strict=True)]
    if eqn.primitive.name == "conv_general_dilated" and self._conv is not None:
      return [self._conv(*values, **params)]
    out = eqn.primitive.bind(*values, **params)
    return list(out) if eqn.primitive.multiple_results else [out]

  def _cut_parts(self, value, arriving: Axes, axes: Axes):
    """Cuts the axes that have joint labels in the operand and plain labels in this equation.

    The operand holds joint axes at their dense size, but this equation expects them cut.
    """
    if not has_parts(arriving):
      return value
    was_part = zip(arriving, axes, strict=True)
    return self.take(value, tuple(a if isinstance(old, JointAxis) else None for old, a in was_part))

  def _params(self, rule: rules.Rule, step: Step) -> dict | None:
    """Returns the equation's parameters at the shapes that remain.

    Returns None if the equation must be evaluated at dense shapes: its rule demands that, or the
    rows of keep need different parameters.
    """
    of_row = lambda row: rule.params(step.eqn, step.inputs, step.outputs, self._kept_of_row(row))
    params = of_row(0)
    if rule.params is not rules.unchanged and any(
      of_row(row) != params for row in range(1, len(self._keep))
    ):
      return None
    return params

  def _vanishes(self, step: Step) -> bool:
    """Returns whether a layer has lost a whole axis; XLA accepts no such convolution."""
    axes = [*step.inputs, *step.outputs] if step.contraction is not None else []
    return any(
      isinstance(labels, np.ndarray) and not self.kept(labels).any()
      for operand in axes
      for labels in operand
    )

  def _masked_operands(self, step: Step, values: list[Any]) -> list[Any]:
    """Multiplies the input of a layer by the mask.

    Only layers that sum over channels are masked. A depthwise convolution passes its channels on
    separately, so masking the next layer that sums over them has the same effect.
    """
    where = step.contraction
    if self._mask is None or where.axis is None or where.by_group:
      return values
    masked = list(values)
    for axis in (where.axis, *(axis for axis, _ in where.further_in)):
      labels = step.inputs[where.operand][axis]
      if labels is not None and (self._channel_of(labels) >= 0).any():
        masked[where.operand] = self._masked(masked[where.operand], axis, labels)
    return masked

  def _masked(self, x: jax.Array, axis: int, labels: np.ndarray) -> jax.Array:
    """Multiplies an array by the mask of the channels along an axis."""
    factors = self.take(self._mask[self._channel_of(labels)], (labels,))
    factors = jnp.expand_dims(factors, [k for k in range(x.ndim) if k != axis]).astype(x.dtype)
    if self._sees_statistics:
      # A removed channel may be infinite, because statistics of the others need not bound it.
      x = jnp.where(factors == 0, jnp.zeros((), x.dtype), x)
    return x * factors

  def _masked_reduction(self, step: Step, values: list[Any]) -> list[Any]:
    """Replaces the removed elements of a reduction's operand by what changes no result."""
    (x,), name = values, step.eqn.primitive.name
    if self._mask is None:
      return values
    self._sees_statistics = True
    for axis in step.reduced:
      labels = step.inputs[0][axis]
      ids = self._channel_of(labels)
      if not (ids >= 0).any():
        continue
      if name == "reduce_sum" and jnp.issubdtype(x.dtype, jnp.inexact):
        x = self._masked(x, axis, labels)
        continue
      kept = self.take(self._mask[ids], (labels,)) != 0
      kept = jnp.expand_dims(kept, [k for k in range(x.ndim) if k != axis])
      x = jnp.where(kept, x, reductions.NEUTRAL[name](x.dtype))
    return [x]

  def _kept_numbers(self, step: Step, values: list[Any]) -> list[Any]:
    """Lets a mean divide by the number of elements that are kept."""
    total = step.quotient.total
    count = total.others
    for labels in total.labels:
      if self._mask is not None:
        count = count * self._mask[self._channel_of(labels)].sum()
      else:
        count = count * int(self.kept(labels).sum())
    return reductions.with_count(step.eqn, values, count)

  def _call(self, step: Step, values: list[Any]) -> list[Any]:
    eqn, name = step.eqn, step.eqn.primitive.name

    def body(*args):
      return self.run(step.body, list(args))

    if name == "scan":
      return self._loop(step, body, values)
    if name == "while":
      return self._repeat(step, body, values)
    if name in ("checkpoint", "remat", "remat2"):
      body = jax.checkpoint(
        body, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"]
      )
    elif name in WITH_DERIVATIVE:
      if self._keep is None and not step.body.contractions():
        # The body has no layer, so the mask changes nothing in it and the call is evaluated as is.
        return evaluate_alone(eqn, values)
      with_rule = self._with_jvp if name == "custom_jvp_call" else self._with_vjp
      body = with_rule(step, body)
    return body(*values)

  def _loop(self, step: Step, body: Callable, values: list[Any]) -> list[Any]:
    """Evaluates a `scan`, whose channels are the same in every iteration."""
    p = step.eqn.params
    first, num_state = loop_sizes(step.eqn)
    last = first + num_state

    def iterate(state, slices):
      out = body(*values[:first], *state, *slices)
      return out[:num_state], out[num_state:]

    state, stacked = jax.lax.scan(
      iterate, values[first:last], values[last:], p["length"], p["reverse"], p["unroll"]
    )
    return [*state, *stacked]

  def _repeat(self, step: Step, body: Callable, values: list[Any]) -> list[Any]:
    """Evaluates a `while`, whose channels are the same in every iteration."""
    num_condition = step.eqn.params["cond_nconsts"]
    of_condition, given = values[:num_condition], of_body(step.eqn, values)
    first, _ = loop_sizes(step.eqn)
    return jax.lax.while_loop(
      lambda state: self.run(step.condition, [*of_condition, *state])[0],
      lambda state: body(*given[:first], *state),
      given[first:],
    )

  def _choose(self, step: Step, values: list[Any]) -> list[Any]:
    """Evaluates the branch of a `cond` that the first value says."""
    index, *operands = values
    runs = [lambda *args, body=body: self.run(body, list(args)) for body in step.branches]
    return jax.lax.switch(index, runs, *operands)

  def _with_jvp(self, step: Step, body: Callable) -> Callable:
    """Gives the re-evaluated body the derivative rule of the original call.

    The rule is traced at the dense shapes, and this interpreter then evaluates the traced program
    with the same channels masked or removed.
    """
    with_rule = jax.custom_jvp(body)

    @with_rule.defjvp
    def rule(primals, tangents):
      of_call = derivative(step.eqn)
      inputs = [*step.inputs, *(step.inputs[i] for i in of_call.moving)]
      labelled = self._label_derivative(of_call.program, inputs)
      out = self.run(labelled, [*primals, *(tangents[i] for i in of_call.moving)])
      return out[: len(out) // 2], out[len(out) // 2 :]

    return with_rule

  def _with_vjp(self, step: Step, body: Callable) -> Callable:
    """Gives the re-evaluated body the reverse rule of the original call; see `_with_jvp`."""
    with_rule = jax.custom_vjp(body)

    def backward(primals, cotangents):
      of_call = derivative(step.eqn)
      inputs = [*step.inputs, *(step.outputs[i] for i in of_call.counted)]
      labelled = self._label_derivative(of_call.program, inputs)
      found = self.run(labelled, [*primals, *(cotangents[i] for i in of_call.counted)])
      of_operand = dict(zip(of_call.moving, found, strict=True))
      return tuple(of_operand.get(i) for i in range(len(primals)))

    with_rule.defvjp(lambda *args: (body(*args), args), backward)
    return with_rule

  def _label_derivative(self, closed: jex_core.ClosedJaxpr, inputs: list[Axes]) -> Program:
    """Labels the program of a derivative rule.

    Raises:
      InputError: the rule ties or freezes channels that the function itself does not, so that
        these channels cannot be removed from the rule.
    """
    channels = [labels for axes in inputs for labels in axes if isinstance(labels, np.ndarray)]
    before = [self._channel_of(labels) for labels in channels]
    program = label(closed, self._classes, inputs, [Source(False, False)] * len(inputs))
    self._classes.settle()
    for labels, ids in zip(channels, before, strict=True):
      reasons = [self._classes.reason(of) for of in labels[ids != FROZEN].tolist()]
      if (ids != self._channel_of(labels)).any() or any(reasons):
        why = next(filter(None, reasons), "it ties channels together")
        raise InputError(f"the derivative rule of a function cannot lose channels: {why}")
    return program
