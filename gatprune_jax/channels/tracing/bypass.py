"""Which groups may be removed whole, because another path carries the signal past them.

The signal is whatever depends on the model's input. It is followed from equation to equation as a
set of *nodes*: sets of label classes that occur on exactly the same axes, and one node for all
that is not labelled. A layer without inputs computes zero, and a product with zero carries no
signal, so zeros are followed too; where it is unsure whether something is zero, it is.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

from jax.extend import core as jex_core
import numpy as np

from gatprune_jax.channels.graph import Group
from gatprune_jax.channels.rules.axes import Axes, JointAxis
from gatprune_jax.channels.rules.classes import LabelClasses
from gatprune_jax.channels.tracing.grouping import Partition
from gatprune_jax.channels.tracing.labelling import Program, Step
from gatprune_jax.channels.tracing.layers import consumed

_UNLABELLED = -1
_Nodes = frozenset[int]
# A zero operand makes the result zero, or one that does not depend on the other operands.
_PRODUCTS = ("mul", "div", "pow", "and", "select_n", "dot_general", "conv_general_dilated")
_SUMS = ("add", "add_any", "sub")
_NOT_ZERO_AT_ZERO = ("logistic", "exp", "exp2", "cos", "cosh", "erfc")  # a gate's sigmoid, say


class _Signal(NamedTuple):
  """What a value carries."""

  alive: _Nodes = frozenset()  # depends on the model's input
  zero: _Nodes = frozenset()  # may be zero for every input, because channels are gone


def with_bypass(
  program: Program,
  from_input: list[bool],
  classes: LabelClasses,
  channel_of: Callable[[np.ndarray], np.ndarray],
  groups: tuple[Group, ...],
) -> tuple[Group, ...]:
  """Sets `has_bypass` of every group.

  A layer all of whose inputs are removed computes zero and carries nothing, and neither does what
  is multiplied by that zero. Groups join the set in network order while, with the whole set
  removed, every output still depends on the model's input; a path that carries for a set carries
  for each of its subsets.

  Args:
    program: the labelled program.
    from_input: which of the program's operands are the model's input, not its variables.
    classes: the label classes, complete.
    channel_of: labels `[size]` -> channel ids `[size]`.
    groups: in network order.
  """
  group_of = np.full(sum(len(group.channels) for group in groups) + 1, len(groups))
  for index, group in enumerate(groups):
    group_of[group.channels] = index
  nodes = _Numbering(program, classes, group_of[channel_of(np.arange(len(classes)))])
  inputs = [_Signal(frozenset([_UNLABELLED] if flag else [])) for flag in from_input]

  def carried(removed: set[int]) -> list[bool]:
    gone = frozenset(n for n, index in nodes.group_of_node.items() if index in removed)
    return [bool(signal.alive) for signal in _propagate(program, inputs, nodes, gone)]

  dense = carried(set())
  removed: set[int] = set()
  for index in range(len(groups)):
    if carried(removed | {index}) == dense:
      removed.add(index)
  return tuple(
    dataclasses.replace(group, has_bypass=index in removed) for index, group in enumerate(groups)
  )


class _Numbering:
  """The nodes of a program: classes in one group (or frozen) that occur on the same axes."""

  def __init__(self, program: Program, classes: LabelClasses, group_of_label: np.ndarray):
    self._root = classes.find(np.arange(len(classes)))
    partition = Partition(group_of_label)
    for axes in {_identity(axes): axes for axes in _all_axes(program)}.values():
      partition.split(np.unique(self._roots(axes)))
    self._node_of_label = partition.of[self._root]
    self.group_of_node = dict(
      zip(self._node_of_label.tolist(), group_of_label[self._root].tolist(), strict=True)
    )
    self._of: dict[tuple, _Nodes] = {}
    self._of_step: dict[int, tuple] = {}

  def _roots(self, axes: Axes) -> np.ndarray:
    labels = [a.labels.ravel() if isinstance(a, JointAxis) else a for a in axes if a is not None]
    return self._root[np.concatenate(labels)] if labels else np.empty(0, np.int64)

  def of(self, axes: Axes) -> _Nodes:
    """The nodes of an array, as a set."""
    key = _identity(axes)
    if key not in self._of:
      self._of[key] = frozenset(np.unique(self._node_of_label[self._roots(axes)]).tolist())
    return self._of[key]

  def of_step(self, step: Step) -> tuple[list[_Nodes], list[_Nodes], _Nodes | None]:
    """The nodes of each operand of a step, of each result, and of the axis that it sums over."""
    if id(step) not in self._of_step:
      operands = [self.of(axes) for axes in step.inputs]
      read = consumed(step) if step.contraction is not None else None
      results = [self.of(axes) for axes in step.outputs]
      self._of_step[id(step)] = (operands, results, None if read is None else self.of((read,)))
    return self._of_step[id(step)]


def _identity(axes: Axes) -> tuple[int, ...]:
  """The same for axes with the same labels; the program keeps the arrays of labels."""
  return tuple(id(a.labels if isinstance(a, JointAxis) else a) for a in axes if a is not None)


def _all_axes(program: Program) -> list[Axes]:
  found = []
  for step in program.steps:
    found += _all_axes(step.body) if step.body is not None else [*step.inputs, *step.outputs]
  return found


def _propagate(
  program: Program, inputs: list[_Signal], numbering: _Numbering, gone: _Nodes
) -> list[_Signal]:
  """What each result carries, given what the operands do, once some nodes are gone."""
  signals: dict[Any, _Signal] = dict(zip(program.jaxpr.invars, inputs, strict=True))
  nothing = _Signal()
  look_up = lambda v: nothing if isinstance(v, jex_core.Literal) else signals.get(v, nothing)
  for step in program.steps:
    operands = [look_up(var) for var in step.eqn.invars]
    if step.body is not None:
      results = _propagate(step.body, operands, numbering, gone)
    else:
      results = _through(step, operands, numbering, gone)
    signals.update(zip(step.eqn.outvars, results, strict=True))
  return [look_up(var) for var in program.jaxpr.outvars]


def _through(
  step: Step, operands: list[_Signal], numbering: _Numbering, gone: _Nodes
) -> list[_Signal]:
  """What the results of one equation carry."""
  known, results, read = numbering.of_step(step)
  is_product = step.eqn.primitive.name in _PRODUCTS
  out = []
  for nodes in results:
    alive = _alive(step, operands, frozenset().union(*known), nodes, read, gone)
    zero = _zero(step, operands, known, nodes, read, gone)
    out.append(_Signal(alive - zero, zero) if is_product else _Signal(alive, zero - alive))
  return out


def _alive(
  step: Step,
  operands: list[_Signal],
  known: _Nodes,
  nodes: _Nodes,
  read: _Nodes | None,
  gone: _Nodes,
) -> _Nodes:
  """Which nodes of a result depend on the input, if no operand is zero."""
  arriving: _Nodes = frozenset().union(*(operand.alive for operand in operands))
  if read is not None and not arriving & read:  # a layer whose inputs are gone, or do not depend
    return frozenset()
  if not nodes:
    return frozenset([_UNLABELLED] if arriving else [])
  if read is not None or (step.contraction is not None and _UNLABELLED in arriving):
    return nodes - gone  # a layer mixes its inputs
  # Element by element; what is new on the axis comes from operands without labels.
  new = nodes - known if _UNLABELLED in arriving else frozenset()
  return (arriving & nodes | new) - gone


def _zero(
  step: Step,
  operands: list[_Signal],
  known: list[_Nodes],
  nodes: _Nodes,
  read: _Nodes | None,
  gone: _Nodes,
) -> _Nodes:
  """Which nodes of a result may be zero, if none is alive or it is a product."""
  name = step.eqn.primitive.name
  nodes = nodes or frozenset([_UNLABELLED])
  if name in _NOT_ZERO_AT_ZERO:
    return frozenset()
  by_operand = []
  for operand, own in zip(operands, known, strict=True):
    if read is not None and read <= gone | operand.zero:  # all that a layer sums over
      by_operand.append(nodes)
    elif operand.zero - (read or frozenset()):  # a zero on another axis may be broadcast
      by_operand.append(operand.zero & nodes | nodes - own)
    else:
      by_operand.append(frozenset())
  if name in _SUMS:  # a bias ends it
    return nodes.intersection(*by_operand) - gone
  return frozenset().union(*by_operand) - gone
