"""Finds the kernels whose layers sum over channels, and the biases of these layers."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from jax.extend import core as jex_core
import numpy as np

from gatprune_jax.channels.graph import FROZEN, ChannelGraph
from gatprune_jax.channels.tracing.labelling import Program, Step
from gatprune_jax.channels.tracing.loops import LOOPS

# The matrices of longer input axes would need gigabytes. Layers beyond this length, such as the
# first dense layer of AlexNet, keep their kernels.
_LARGEST = 4096
# Primitives that only move or convert the elements of a vector on its way to an addition.
_MOVES = ("broadcast_in_dim", "reshape", "convert_element_type", "squeeze", "copy")


class Reader(NamedTuple):
  """A kernel whose layer sums over channels. All of its uses read its axes in the same roles."""

  leaf: int  # index of the kernel among the graph's leaves
  axis: int  # the kernel's input axis
  out_axis: int | None  # the kernel's output axis
  num_groups: int  # of a grouped convolution; each group has a matrix of its own
  bias: int | None  # index of the vector that is added to the layer's result, if there is one


def find_readers(graph: ChannelGraph, program: Program) -> tuple[Reader, ...]:
  """Returns the kernels that can be compensated, in the order of the graph's leaves."""
  roles: dict[int, set[tuple]] = {}
  for layer in graph.layers:
    if layer.kernel is not None:
      roles.setdefault(layer.kernel, set()).add(layer.kernel_axes)
  uses: dict[int, list[tuple[Step, int | None]]] = {}
  for step, bias in _uses(program, list(range(len(graph.leaves)))):
    if step.leaf is not None:
      uses.setdefault(step.leaf, []).append((step, bias))
  biases = [bias for found in uses.values() for _, bias in found if bias is not None]

  def reader(leaf: int) -> Reader | None:
    steps = [step for step, _ in uses[leaf]]
    axes = roles.get(leaf, set())
    if len(axes) != 1 or not all(map(_sums_over_channels, steps)):
      return None
    ((axis, out_axis),) = axes
    ids = graph.leaves[leaf].axes[axis] if axis is not None else np.zeros(0, int)
    groups = {_num_groups(step) for step in steps}
    if not (ids != FROZEN).any() or len(ids) > _LARGEST or len(groups) != 1:
      return None
    (num_groups,) = groups
    bias = uses[leaf][0][1] if len(steps) == 1 and num_groups == 1 else None
    if bias is not None and (biases.count(bias) > 1 or out_axis is None):
      bias = None
    return Reader(leaf, axis, out_axis, num_groups, bias)

  return tuple(found for leaf in sorted(uses) if (found := reader(leaf)) is not None)


def _uses(program: Program, leaf_of_input: list[int | None]) -> Iterator[tuple[Step, int | None]]:
  """Yields every layer, inside calls too, with the index of the vector added to its result.

  Args:
    program: the labelled program.
    leaf_of_input: for each input of the program, the index of the variable that it is, or None.
  """
  leaf_of = dict(zip(program.jaxpr.invars, leaf_of_input, strict=False))
  consumers: dict[Any, list[Any]] = {}
  for step in program.steps:
    for var in step.eqn.invars:
      if not isinstance(var, jex_core.Literal):
        consumers.setdefault(var, []).append(step.eqn)
    name = step.eqn.primitive.name
    if name in _MOVES and step.eqn.invars[0] in leaf_of:
      leaf_of[step.eqn.outvars[0]] = leaf_of[step.eqn.invars[0]]
  for step in program.steps:
    known = [None if isinstance(v, jex_core.Literal) else leaf_of.get(v) for v in step.eqn.invars]
    if step.eqn.primitive.name in LOOPS:
      continue  # its kernels have inputs of their own in every iteration
    if step.body is not None:
      yield from _uses(step.body, known)
    elif step.contraction is not None:
      yield step, _added(step.eqn.outvars[0], consumers, leaf_of)


def _added(result: Any, consumers: dict[Any, list[Any]], leaf_of: dict[Any, int | None]):
  """Returns the index of the variable that is added to a layer's result, or None.

  The result may be converted to another dtype first. It must have no other use, because a bias
  behind another use of the result would not reach that use.
  """
  while len(consumers.get(result, ())) == 1:
    (eqn,) = consumers[result]
    if eqn.primitive.name == "convert_element_type":
      result = eqn.outvars[0]
    elif eqn.primitive.name in ("add", "add_any"):
      other = eqn.invars[1] if eqn.invars[0] is result else eqn.invars[0]
      return None if isinstance(other, jex_core.Literal) else leaf_of.get(other)
    else:
      return None
  return None


def _sums_over_channels(step: Step) -> bool:
  """Returns whether a layer sums over channels with one kernel for all elements of the batch."""
  where = step.contraction
  if where.axis is None or where.by_group or where.kernel_in is None:
    return False
  if step.inputs[where.operand][where.axis] is None:
    return False
  if step.eqn.primitive.name == "dot_general":
    _, (batch, _) = step.eqn.params["dimension_numbers"]
    return len(batch) == 0
  return step.eqn.params["batch_group_count"] == 1


def _num_groups(step: Step) -> int:
  return step.eqn.params.get("feature_group_count", 1)
