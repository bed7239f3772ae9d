"""Finds the groups that may be removed whole because another path carries the signal past them.

The signal is every value that depends on the model's input. The signal is followed from equation
to equation as a set of *nodes*. A node holds label classes of one group, or frozen classes, that
occur in exactly the same arrays, and one extra node holds all values without labels. A layer
without inputs computes zero, and a product with zero carries no signal, so zeros are followed too.
A value that might be zero is treated as zero. Where values are joined along space or tokens and not
all of them carry the signal, the result carries it at some positions only: a class token, which is
a weight, learns of the image by attention and in no other way.
"""

from collections.abc import Callable
import dataclasses
import heapq
from typing import Any, NamedTuple

from jax.extend import core as jex_core
import numpy as np

from gatprune_jax.channels.graph import Group
from gatprune_jax.channels.rules.axes import Axes, JointAxis
from gatprune_jax.channels.rules.classes import LabelClasses
from gatprune_jax.channels.tracing.grouping import Partition
from gatprune_jax.channels.tracing.labelling import Program, Step
from gatprune_jax.channels.tracing.layers import consumed
from gatprune_jax.channels.tracing.loops import loop_sizes

_UNLABELLED = -1  # the node of all values without labels
_Nodes = frozenset[int]
# A zero operand can make the result zero, or constant in the other operands.
_PRODUCTS = ("mul", "div", "pow", "and", "select_n", "dot_general", "conv_general_dilated")
_SUMS = ("add", "add_any", "sub")
# Functions with f(0) != 0, such as the sigmoid of a gate.
_NOT_ZERO_AT_ZERO = ("logistic", "exp", "exp2", "cos", "cosh", "erfc")
# Operations that may take some positions of an array and leave others.
_SELECTIONS = ("slice", "split", "squeeze", "dynamic_slice", "gather")


class _Signal(NamedTuple):
  """Nodes on which a value carries the signal, and nodes on which the value may be zero."""

  alive: _Nodes = frozenset()  # nodes that depend on the model's input
  partly: _Nodes = frozenset()  # nodes that depend on it at some positions and not at others
  zero: _Nodes = frozenset()  # nodes that may be zero for every input, because channels are gone


def with_bypass(
  program: Program,
  from_input: list[bool],
  classes: LabelClasses,
  channel_of: Callable[[np.ndarray], np.ndarray],
  groups: tuple[Group, ...],
) -> tuple[Group, ...]:
  """Sets `has_bypass` of every group.

  A layer whose inputs are all removed computes zero and carries no signal. A product with that
  zero carries no signal either. The groups are tried in network order. A group joins the set of
  groups with a bypass if, with the whole set removed, every output of the model still depends on
  the model's input wherever it did before. A path that carries the signal past a set of groups
  also carries the signal past each of its subsets. A group over which statistics are taken, as in a
  layer norm, has no bypass. Nor has a group on the second axis of two that a layer sums over, such
  as the heads of attention beside their elements, because the signal is followed along one axis.
  Nor has any group of a network with a `cond` or a `while` of labelled values, because one of the
  branches may drop the signal, and the loop may end before the signal arrives.

  Args:
    program: the labelled program.
    from_input: for each input of the program, whether it is the model's input and not a variable.
    classes: the label classes, after all merging and freezing.
    channel_of: labels `[size]` -> channel ids `[size]`.
    groups: the groups, in network order.

  Returns:
    The groups with `has_bypass` set.
  """
  if _may_drop(program):
    return groups
  group_of = np.full(sum(len(group.channels) for group in groups) + 1, len(groups))
  for index, group in enumerate(groups):
    group_of[group.channels] = index
  nodes = _Numbering(program, classes, group_of[channel_of(np.arange(len(classes)))])
  flow = _Flow(program, from_input, nodes)
  needed = set()
  for step in program.all_steps():
    # A mean over no channel does not exist.
    axes = [step.inputs[0][axis] for axis in step.reduced]
    # The signal is followed along one of the axes that a layer sums over.
    axes += consumed(step)[1:] if step.contraction is not None else []
    needed.update(group for labels in axes for group in group_of[channel_of(labels)].tolist())
  removed = {index for index in range(len(groups)) if index not in needed and flow.removes(index)}
  return tuple(
    dataclasses.replace(group, has_bypass=index in removed) for index, group in enumerate(groups)
  )


def _may_drop(program: Program) -> bool:
  """Returns whether a program, or one in its calls, has a branch or a loop that may end at once."""
  return any(
    step.branches or step.condition is not None or (step.body is not None and _may_drop(step.body))
    for step in program.steps
  )


class _Numbering:
  """Nodes of a program: classes of one group, or frozen, that occur in the same arrays."""

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
    """Returns the set of nodes on the axes of an array."""
    key = _identity(axes)
    if key not in self._of:
      self._of[key] = frozenset(np.unique(self._node_of_label[self._roots(axes)]).tolist())
    return self._of[key]

  def of_step(self, step: Step) -> tuple[list[_Nodes], list[_Nodes], _Nodes | None]:
    """Returns the nodes of each operand, of each result, and of the axis that a layer sums over.

    The last is None if the step sums over no labelled axis.
    """
    if id(step) not in self._of_step:
      operands = [self.of(axes) for axes in step.inputs]
      read = next(iter(consumed(step)), None) if step.contraction is not None else None
      results = [self.of(axes) for axes in step.outputs]
      self._of_step[id(step)] = (operands, results, None if read is None else self.of((read,)))
    return self._of_step[id(step)]


def _identity(axes: Axes) -> tuple[int, ...]:
  """Returns a key that is equal for axes with the same label arrays.

  Object ids are a safe key, because the program keeps the label arrays alive.
  """
  return tuple(id(a.labels if isinstance(a, JointAxis) else a) for a in axes if a is not None)


def _all_axes(program: Program) -> list[Axes]:
  found = []
  for step in program.steps:
    found += _all_axes(step.body) if step.body is not None else [*step.inputs, *step.outputs]
  return found


class _Place(NamedTuple):
  """A step of a program in which all calls are replaced by their bodies."""

  step: Step
  operands: list[int | None]  # index of each operand among all values; None: carries no signal
  results: list[int]


class _Flow:
  """The signal of every value of a program, while one group after another is removed.

  Whether a group can be removed is found from the values that differ from those before, so that the
  time does not grow with the square of the number of groups.

  Args:
    program: the labelled program.
    from_input: for each input of the program, whether it is the model's input and not a variable.
    numbering: the nodes of the program.
  """

  def __init__(self, program: Program, from_input: list[bool], numbering: _Numbering):
    self._numbering = numbering
    self._gone: _Nodes = frozenset()
    self._places: list[_Place] = []
    self._signals = [_Signal(frozenset([_UNLABELLED] if flag else [])) for flag in from_input]
    self._made = [-1] * len(from_input)  # index of the place that makes each value
    self._outputs = self._unfold(program, list(range(len(from_input))))
    self._readers: list[list[int]] = [[] for _ in self._signals]
    nodes_of: dict[int, set[int]] = {}
    for node, group in numbering.group_of_node.items():
      nodes_of.setdefault(group, set()).add(node)
    self._nodes_of = {group: frozenset(nodes) for group, nodes in nodes_of.items()}
    touched: dict[int, list[int]] = {}  # group -> the places that hold nodes of it
    for index, place in enumerate(self._places):
      for value in {value for value in place.operands if value is not None}:
        self._readers[value].append(index)
      for group in {numbering.group_of_node[node] for node in self._nodes_at(index)}:
        touched.setdefault(group, []).append(index)
    self._touched = touched
    # The place after which a value is not needed any more.
    self._last = np.array([max(readers, default=-1) for readers in self._readers])
    self._last[[value for value in self._outputs if value is not None]] = len(self._places)
    self._last = np.maximum(self._last, self._made)  # a result that nothing reads
    for index in range(len(self._places)):
      for value, signal in zip(self._places[index].results, self._at(index, {}), strict=True):
        self._signals[value] = signal
    self._dense = self._carried({})
    self._carrying = np.array([_carries(signal) for signal in self._signals], int)
    self._count()

  def removes(self, group: int) -> bool:
    """Removes a group if all outputs still carry what they carried in the dense network."""
    before = self._gone
    self._gone = before | self._nodes_of.get(group, frozenset())
    changed = self._changes(group)
    if changed is None or self._carried(changed) != self._dense:
      self._gone = before
      return False
    for value, signal in changed.items():
      self._signals[value] = signal
      self._carrying[value] = _carries(signal)
    self._count()
    return True

  def _unfold(self, program: Program, inputs: list[int | None]) -> list[int | None]:
    """Appends the places of a program and its calls; returns its results among all values."""
    values: dict[Any, int | None] = dict(zip(program.jaxpr.invars, inputs, strict=True))
    look_up = lambda var: None if isinstance(var, jex_core.Literal) else values.get(var)
    for step in program.steps:
      operands = [look_up(var) for var in step.eqn.invars]
      if step.eqn.primitive.name == "scan":
        # The signal may pass from one value of the state to the next in each iteration.
        first, num_state = loop_sizes(step.eqn)
        last = first + num_state
        results = operands[first:last]
        for _ in range(num_state + 1):
          given = [*operands[:first], *results[:num_state], *operands[last:]]
          results = self._unfold(step.body, given)
      elif step.body is not None:
        results = self._unfold(step.body, operands)
      else:
        results = list(range(len(self._signals), len(self._signals) + len(step.eqn.outvars)))
        self._signals += [_Signal()] * len(results)
        self._made += [len(self._places)] * len(results)
        self._places.append(_Place(step, operands, results))
      values.update(zip(step.eqn.outvars, results, strict=True))
    return [look_up(var) for var in program.jaxpr.outvars]

  def _nodes_at(self, index: int) -> _Nodes:
    operands, results, read = self._numbering.of_step(self._places[index].step)
    return frozenset().union(*operands, *results, read or ())

  def _at(self, index: int, changed: dict[int, _Signal]) -> list[_Signal]:
    """Returns the signals of the results at a place, given the values whose signals differ."""
    place, nothing = self._places[index], _Signal()
    operands = [
      nothing if value is None else changed.get(value, self._signals[value])
      for value in place.operands
    ]
    gone = self._gone & self._nodes_at(index)
    return _through(place.step, operands, self._numbering, gone)

  def _changes(self, group: int) -> dict[int, _Signal] | None:
    """Returns the signals that differ without a group; None if no signal arrives anywhere."""
    changed: dict[int, _Signal] = {}
    dead: list[int] = []  # values that carried the signal before
    waiting = list(self._touched.get(group, []))
    heapq.heapify(waiting)
    done = -1
    while waiting:
      index = heapq.heappop(waiting)
      if index == done:
        continue
      done = index
      for value, signal in zip(self._places[index].results, self._at(index, changed), strict=True):
        if signal != self._signals[value]:
          changed[value] = signal
          for reader in self._readers[value]:
            heapq.heappush(waiting, reader)
          if _carries(self._signals[value]) and not _carries(signal):
            dead.append(value)
      dead = [value for value in dead if self._last[value] > index]
      if dead and len(dead) == self._alive[index]:
        return None
    return changed

  def _carried(self, changed: dict[int, _Signal]) -> list[tuple[bool, bool]]:
    """Returns for each output whether it carries the signal at all and at some positions."""
    nothing = _Signal()
    signals = [
      nothing if value is None else changed.get(value, self._signals[value])
      for value in self._outputs
    ]
    return [(bool(signal.alive), _carries(signal)) for signal in signals]

  def _count(self) -> None:
    """Counts after each place the values that carry the signal and are still needed."""
    change = np.zeros(len(self._places) + 2, int)
    np.add.at(change, np.maximum(self._made, 0), self._carrying)
    np.subtract.at(change, np.maximum(self._last, 0), self._carrying)
    self._alive = np.cumsum(change)


def _carries(signal: _Signal) -> bool:
  return bool(signal.alive or signal.partly)


def _through(
  step: Step, operands: list[_Signal], numbering: _Numbering, gone: _Nodes
) -> list[_Signal]:
  """Returns the signals of the results of one equation."""
  known, results, read = numbering.of_step(step)
  is_product = step.eqn.primitive.name in _PRODUCTS
  out = []
  for nodes in results:
    alive, partly = _dependent(step, operands, nodes, read, gone)
    zero = _zero(step, operands, known, nodes, read, gone)
    if is_product:
      out.append(_Signal(alive - zero, partly - zero, zero))
    else:
      out.append(_Signal(alive, partly, zero - alive - partly))
  return out


def _dependent(
  step: Step, operands: list[_Signal], nodes: _Nodes, read: _Nodes | None, gone: _Nodes
) -> tuple[_Nodes, _Nodes]:
  """Returns the nodes of a result that depend on the model's input if no operand is zero.

  Returns:
    The nodes that depend on it at all positions, and those that do at some positions only.
  """
  each = [_reached(step, operand.alive, nodes, read, gone) for operand in operands]
  somewhere = [
    _reached(step, operand.alive | operand.partly, nodes, read, gone) for operand in operands
  ]
  alive, reached = frozenset().union(*each), frozenset().union(*somewhere)
  if _mixes_positions(step):
    return reached, frozenset()
  if step.eqn.primitive.name == "concatenate" and _joins_positions(step):
    alive = alive.intersection(*each)
  elif step.eqn.primitive.name in _SELECTIONS:
    reached = alive
  return alive, reached - alive


def _reached(
  step: Step, arriving: _Nodes, nodes: _Nodes, read: _Nodes | None, gone: _Nodes
) -> _Nodes:
  """Returns the nodes of a result that depend on the given nodes of one operand."""
  # All inputs of a layer are gone, or none depends on the model's input.
  if read is not None and not arriving & read:
    return frozenset()
  if not nodes:
    return frozenset([_UNLABELLED] if arriving else [])
  # Each output of a layer depends on all of its inputs, and each element of a result on an operand
  # without labels.
  if read is not None or _UNLABELLED in arriving:
    return nodes - gone
  return arriving & nodes - gone


def _mixes_positions(step: Step) -> bool:
  """Returns whether each element of the result depends on many positions of the operands."""
  name, params = step.eqn.primitive.name, step.eqn.params
  if name.startswith("reduce_") and "axes" in params:
    return any(step.inputs[0][axis] is None for axis in params["axes"])
  if name != "dot_general":
    return False
  contract, _ = params["dimension_numbers"]
  return any(
    operand[axis] is None
    for operand, axes in zip(step.inputs, contract, strict=True)
    for axis in axes
  )


def _joins_positions(step: Step) -> bool:
  axis = step.eqn.params["dimension"]
  return all(axes[axis] is None for axes in step.inputs)


def _zero(
  step: Step,
  operands: list[_Signal],
  known: list[_Nodes],
  nodes: _Nodes,
  read: _Nodes | None,
  gone: _Nodes,
) -> _Nodes:
  """Returns the nodes of a result that may be zero.

  For a product, the caller uses all of these nodes. For any other operation, the caller uses only
  those that carry no signal.
  """
  name = step.eqn.primitive.name
  nodes = nodes or frozenset([_UNLABELLED])
  if name in _NOT_ZERO_AT_ZERO:
    return frozenset()
  by_operand = []
  for operand, own in zip(operands, known, strict=True):
    if read is not None and read <= gone | operand.zero:  # every summand of the layer is zero
      by_operand.append(nodes)
    elif operand.zero - (read or frozenset()):
      # A zero on another axis may be broadcast over the nodes that the operand does not have.
      by_operand.append(operand.zero & nodes | nodes - own)
    else:
      by_operand.append(frozenset())
  if name in _SUMS:  # a sum is zero only if all terms are zero, so a bias ends the zero
    return nodes.intersection(*by_operand) - gone
  return frozenset().union(*by_operand) - gone
