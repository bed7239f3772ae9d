"""Which groups may be removed whole, because another path carries the signal past them."""

from collections.abc import Callable
import dataclasses
from typing import Any

from jax.extend import core as jex_core
import numpy as np

from gatprune_jax.channels.graph import FROZEN, Group
from gatprune_jax.channels.labelling import Program
from gatprune_jax.channels.layers import consumed


def with_bypass(
  program: Program,
  from_input: list[bool],
  channel_of: Callable[[np.ndarray], np.ndarray],
  groups: tuple[Group, ...],
) -> tuple[Group, ...]:
  """Sets `has_bypass` of every group.

  A layer all of whose inputs are removed computes zero and carries nothing. Groups join the set in
  network order while, with the whole set removed, every output still depends on the model's input;
  a path that carries for a set carries for each of its subsets.

  Args:
    program: the labelled program.
    from_input: which of the program's operands are the model's input, not its variables.
    channel_of: labels `[size]` -> channel ids `[size]`.
    groups: in network order.
  """
  group_of = {int(c): index for index, group in enumerate(groups) for c in group.channels}
  reads = _groups_read(program, channel_of, group_of)
  dense = _carried(program, from_input, reads, set())
  removed: set[int] = set()
  for index in range(len(groups)):
    if _carried(program, from_input, reads, removed | {index}) == dense:
      removed.add(index)
  return tuple(
    dataclasses.replace(group, has_bypass=index in removed) for index, group in enumerate(groups)
  )


def _groups_read(
  program: Program, channel_of: Callable[[np.ndarray], np.ndarray], group_of: dict[int, int]
) -> dict[int, frozenset[int]]:
  """{id of a layer's step: the groups that make up its inputs}, where none of these is frozen."""
  found = {}
  for step in program.contractions():
    labels = consumed(step)
    ids = np.array([FROZEN]) if labels is None else np.unique(channel_of(labels))
    if FROZEN not in ids:
      found[id(step)] = frozenset(group_of[int(channel)] for channel in ids)
  return found


def _carried(
  program: Program, inputs: list[bool], reads: dict[int, frozenset[int]], removed: set[int]
) -> list[bool]:
  """Which results depend on the operands flagged in `inputs` once groups are removed."""
  carried: dict[Any, bool] = dict(zip(program.jaxpr.invars, inputs, strict=True))
  look_up = lambda var: not isinstance(var, jex_core.Literal) and carried.get(var, False)
  for step in program.steps:
    operands = [look_up(var) for var in step.eqn.invars]
    if step.body is not None:
      results = _carried(step.body, operands, reads, removed)
    else:
      read = reads.get(id(step))
      silent = read is not None and read <= removed
      results = [any(operands) and not silent] * len(step.eqn.outvars)
    carried.update(zip(step.eqn.outvars, results, strict=True))
  return [look_up(var) for var in program.jaxpr.outvars]
