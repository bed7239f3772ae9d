"""Finds which arrays a forward pass holds in memory at each moment, from its labelled program.

What is in memory depends on how the program is compiled. The model here is of XLA:

* Element-wise operations, and those that only move elements, are fused into the operations that
  need their results, so that a chain of them writes only its last result.
* Convolutions, dot products, sorting, windows and every operation without a rule read their
  operands from memory and write their results to it. Reductions compute their operands as they go.
* A fused result that several operations need is computed for each of them again, even if it is in
  memory because a convolution reads it there. The exceptions are told at `_is_repeated`.
* A fused chain writes its result over an operand of its size that nothing else needs any more.

Arrays are alive from the operation that writes them to the last one that reads them, in the order
of the program. The network's inputs, which the caller holds, are alive throughout.

Repeating a result can keep arrays in memory that nothing else would need. In a stage of a residual
network, XLA adds up all earlier blocks again for each block, so the results of the blocks' last
convolutions all stay until the stage ends.
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

from jax.extend import core as jex_core
import numpy as np

from gatprune_jax.channels.graph import FROZEN, Activation
from gatprune_jax.channels.rules import reductions
from gatprune_jax.channels.rules.axes import Axes, has_parts, with_joints
from gatprune_jax.channels.rules.table import ELEMENTWISE, IDENTITIES, REDUCTIONS
from gatprune_jax.channels.tracing.labelling import Program, Step
from gatprune_jax.channels.tracing.loops import of_body

_ELEMENTWISE = {*ELEMENTWISE, *IDENTITIES, "broadcast_in_dim"}
# These move elements, so a fused chain that contains them cannot write over its operands.
_MOVING = set(
  """
  bitcast_convert_type concatenate dynamic_slice gather iota rev slice split stack tile
  transpose unstack
""".split()
)
# XLA does not compute these twice if it can help it.
_EXPENSIVE = set(
  """
  acos acosh asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt cos cosh digamma erf erf_inv
  erfc exp exp2 expm1 igamma igamma_grad_a igammac lgamma log log1p logistic polygamma pow
  random_gamma_grad regularized_incomplete_beta rsqrt sin sinh sqrt tan tanh zeta
""".split()
)
_VIEWS = {"reshape", "squeeze"}
_OnChannels = Callable[[Axes], Axes]
_REDUCING = {*REDUCTIONS, *reductions.NEUTRAL, "pad"}


@dataclasses.dataclass(eq=False)
class _Value:
  """A result of the program. Values are compared by identity.

  Attributes:
    aval: shape and dtype.
    axes: channel ids of its axes.
    is_shared: whether it is the same for any batch.
    is_constant: whether constants alone determine it; XLA computes it when it compiles.
    is_free: whether it takes no memory that counts here: it is a variable or a constant.
    is_stored: whether it is written to memory.
    is_repeated: whether fused operations compute it again instead of reading it from memory.
    sources: the values in memory from which a fused result is computed.
    overwritable: those of the sources that only element-wise operations lie between.
  """

  aval: Any
  axes: Axes
  is_shared: bool = False
  is_constant: bool = False
  is_free: bool = False
  is_stored: bool = False
  is_repeated: bool = False
  sources: frozenset["_Value"] = frozenset()
  overwritable: frozenset["_Value"] = frozenset()

  @property
  def num_bytes(self) -> int:
    """Bytes of the dense array, for the whole batch."""
    return math.prod(self.aval.shape) * self.aval.dtype.itemsize


@dataclasses.dataclass(eq=False)
class _Operation:
  """An operation of the program, with the bodies of calls in its place.

  Attributes:
    name: name of the primitive.
    operands: the values that it reads.
    results: the values that it returns.
    is_fused: whether it computes its results only where others need them.
    fuses: whether it computes its operands as it goes.
  """

  name: str
  operands: list[_Value]
  results: list[_Value]
  is_fused: bool
  fuses: bool


def read_memory(
  program: Program, num_leaves: int, channel_of: Callable[[np.ndarray], np.ndarray], batch: int
) -> tuple[tuple[Activation, ...], tuple[tuple[int, ...], ...]]:
  """Returns the arrays that a forward pass holds in memory, and which of them at each moment.

  The body of a loop counts as it is in one iteration, beside what the whole loop reads and writes.
  What happens inside an operation without a rule is not seen.

  Args:
    program: the labelled program.
    num_leaves: number of variables, which are the program's first inputs.
    channel_of: labels `[size]` -> channel ids `[size]`.
    batch: number of examples in the program's input.
  """
  invars = program.jaxpr.invars
  variables = [_Value(var.aval, (), is_free=True) for var in invars[:num_leaves]]
  given = [
    _Value(var.aval, (None,) * len(var.aval.shape), is_stored=True) for var in invars[num_leaves:]
  ]
  operations: list[_Operation] = []
  on_channels = functools.partial(_on_channels, channel_of=channel_of)
  returned = _flatten(program, [*variables, *given], operations, on_channels)
  _choose_stored(operations, returned)
  stored, moments = _moments(operations, given, returned)
  activations = tuple(_activation(value, batch) for value in stored)
  return activations, moments


def _on_channels(axes: Axes, channel_of: Callable[[np.ndarray], np.ndarray]) -> Axes:
  """Returns the axes of an array with channel ids for labels.

  Labels that are joint while a program is labelled may be of channels that only repeat along some
  of the axes, as those of a head's elements do in all heads. Such axes are unlabelled.
  """
  plain = [channel_of(axis) if isinstance(axis, np.ndarray) else None for axis in axes]
  return with_joints(axes, plain, lambda labels, _: channel_of(labels))


def _flatten(
  program: Program, inputs: list[_Value], operations: list[_Operation], on_channels: _OnChannels
) -> list[_Value]:
  """Appends the program's operations, with those of a call's body instead of the call.

  Args:
    program: the labelled program.
    inputs: the values of its inputs.
    operations: the operations so far, to which the program's are appended.
    on_channels: maps axes of labels to axes of channel ids.

  Returns:
    The values of the program's results.
  """
  values: dict[Any, _Value] = dict(zip(program.jaxpr.invars, inputs, strict=True))
  for var in program.jaxpr.constvars:
    values[var] = _constant(var)

  def read(var):
    return _constant(var) if isinstance(var, jex_core.Literal) else values[var]

  for step in program.steps:
    operands = [read(var) for var in step.eqn.invars]
    if step.eqn.primitive.name == "scan":
      results = _flatten_loop(step, operands, operations, on_channels)
    elif step.eqn.primitive.name == "while" and step.body is not None:
      results = _flatten(step.body, of_body(step.eqn, operands), operations, on_channels)
      whole = [*operands, *results]
      operations.append(_Operation("while", whole, [], is_fused=False, fuses=False))
    elif step.body is not None:
      results = _flatten(step.body, operands, operations, on_channels)
    else:
      results = _operation(step, operands, operations, on_channels)
    values.update(zip(step.eqn.outvars, results, strict=True))
  return [
    read(var) if used else _constant(var)
    for var, used in zip(program.jaxpr.outvars, program.used, strict=True)
  ]


def _constant(var: Any) -> _Value:
  """Returns the value of a constant, or one that stands for a result that nothing needs."""
  return _Value(var.aval, (), is_constant=True, is_free=True)


def _operation(
  step: Step, operands: list[_Value], operations: list[_Operation], on_channels: _OnChannels
) -> list[_Value]:
  """Appends one operation and returns the values of its results."""
  name, outvars = step.eqn.primitive.name, step.eqn.outvars
  if operands and _is_view(step, operands[0], on_channels):
    return [operands[0]]
  if all(value.is_constant for value in operands) and not step.eqn.effects:
    return [_constant(var) for var in outvars]
  is_fused = name in _ELEMENTWISE or name in _MOVING or name in _VIEWS
  results = [
    _Value(var.aval, on_channels(axes), step.is_shared, is_stored=not is_fused)
    for var, axes in zip(outvars, step.outputs, strict=True)
  ]
  operations.append(_Operation(name, operands, results, is_fused, is_fused or name in _REDUCING))
  return results


def _is_view(step: Step, operand: _Value, on_channels: _OnChannels) -> bool:
  """Returns whether an operation's result is its operand in memory, seen in another shape.

  A reshape inside a fused chain is none if it splits or merges an axis of channels: the compact
  network removes elements there.
  """
  name, result = step.eqn.primitive.name, step.eqn.outvars[0]
  if name == "broadcast_in_dim":
    return math.prod(step.eqn.invars[0].aval.shape) == math.prod(result.aval.shape)
  if name not in _VIEWS:
    return False
  splits = any(has_parts(on_channels(axes)) for axes in (step.inputs[0], step.outputs[0]))
  return operand.is_stored or not splits


def _flatten_loop(
  step: Step, operands: list[_Value], operations: list[_Operation], on_channels: _OnChannels
) -> list[_Value]:
  """Appends one iteration of a `scan` between the beginning and the end of the whole loop."""
  params, outvars = step.eqn.params, step.eqn.outvars
  first, num_carry = params["num_consts"], params["num_carry"]
  last = first + num_carry
  stacked = [
    _Value(var.aval, on_channels(axes), is_stored=True)
    for var, axes in zip(outvars[num_carry:], step.outputs[num_carry:], strict=True)
  ]
  operations.append(_Operation("scan", [], stacked, is_fused=False, fuses=False))
  slices = [
    _Value(var.aval, on_channels(axes)[1:])
    for var, axes in zip(step.body.jaxpr.invars[last:], step.inputs[last:], strict=True)
  ]
  for whole, part in zip(operands[last:], slices, strict=True):
    operations.append(_Operation("slice", [whole], [part], is_fused=True, fuses=True))
  out = _flatten(step.body, [*operands[:last], *slices], operations, on_channels)
  whole = [*operands[:first], *operands[last:], *stacked, *out]
  operations.append(_Operation("scan", whole, [], is_fused=False, fuses=False))
  return [*out[:num_carry], *stacked]


def _choose_stored(operations: list[_Operation], returned: list[_Value]) -> None:
  """Marks the values that are written to memory, and gives fused results their sources."""
  for value in returned:
    value.is_stored = True
  for operation in operations:
    for value in operation.operands if not operation.fuses else ():
      value.is_stored = True
  users: dict[_Value, list[_Operation]] = {}
  for operation in operations:
    for value in dict.fromkeys(operation.operands):
      users.setdefault(value, []).append(operation)
  for operation in operations:
    if not operation.is_fused:
      continue
    sources = _read_by(operation)
    straight = frozenset()
    if operation.name in _ELEMENTWISE:
      straight = sources - frozenset().union(
        *(v.sources - v.overwritable for v in operation.operands if v.is_repeated)
      )
    for value in operation.results:
      value.sources, value.overwritable = sources, straight
      value.is_repeated = _is_repeated(operation, value, users.get(value, []))
      if not value.is_repeated:
        value.is_stored = True


def _is_repeated(operation: _Operation, value: _Value, users: list[_Operation]) -> bool:
  """Returns whether XLA computes a fused result again for each fused operation that needs it.

  It does not repeat what is expensive. Nor does it repeat what is computed from two arrays of the
  result's size or more, unless all operations that need the result are fused with it, so that it is
  never written: reading both again would take longer than writing the result once.
  """
  if len(users) > 1 and operation.name in _EXPENSIVE:
    return False
  large = [v for v in dict.fromkeys(operation.operands) if v.num_bytes >= value.num_bytes]
  return len(large) <= 1 or all(user.fuses for user in users)


def _read_by(operation: _Operation) -> frozenset[_Value]:
  """Returns the values in memory that an operation reads."""
  read: set[_Value] = set()
  for value in operation.operands:
    if operation.fuses and value.is_repeated:
      read |= value.sources
    elif not value.is_free:
      read.add(value)
  return frozenset(read)


def _moments(
  operations: list[_Operation], given: list[_Value], returned: list[_Value]
) -> tuple[list[_Value], tuple[tuple[int, ...], ...]]:
  """Returns the stored values, and the indices of those in memory while each operation runs.

  Args:
    operations: the operations in execution order.
    given: the network's inputs.
    returned: the network's results.
  """
  runs = []  # (values read, values written, values that may be written over)
  for operation in operations:
    written = [v for v in operation.results if v.is_stored and not v.is_free]
    if written or not operation.is_fused:
      reads = _read_by(operation)
      straight = operation.results[0].overwritable if operation.is_fused else frozenset()
      runs.append((reads, written, straight))
  last_read = {value: place for place, run in enumerate(runs) for value in run[0]}
  always = {value: len(runs) for value in (*given, *returned) if not value.is_free}
  last_read |= always
  stored, alive = list(given), set(given)
  moments = [set(given)]
  for place, (_, written, straight) in enumerate(runs):
    dying = {value for value in alive if last_read.get(value, -1) <= place}
    taken = set()
    for value in written:
      place_of = [
        v for v in dying & straight - taken
        if v.num_bytes == value.num_bytes and _same_axes(v.axes, value.axes)
      ]  # fmt: skip
      taken.update(place_of[:1])
    stored += written
    alive |= set(written)
    moments.append(alive - taken)
    alive = {value for value in alive if last_read.get(value, -1) > place}
  number = {value: index for index, value in enumerate(stored)}
  return stored, tuple(tuple(sorted(number[value] for value in moment)) for moment in moments)


def _same_axes(first: Axes, second: Axes) -> bool:
  """Returns whether two arrays of equal dense size keep equally many elements under every mask."""
  labelled = lambda axes: [a for a in axes if isinstance(a, np.ndarray)]
  pairs = labelled(first), labelled(second)
  return len(pairs[0]) == len(pairs[1]) and all(
    len(a) == len(b) for a, b in zip(*pairs, strict=True)
  )


def _activation(value: _Value, batch: int) -> Activation:
  """Returns a stored value as an `Activation`; joint axes count at their dense size."""
  axes = [ids for ids in value.axes if isinstance(ids, np.ndarray)]
  axes = tuple(ids for ids in axes if (ids != FROZEN).any())
  size = value.num_bytes / math.prod(len(ids) for ids in axes)
  if value.is_shared:
    return Activation(0.0, size, axes)
  return Activation(size / batch, 0.0, axes)
