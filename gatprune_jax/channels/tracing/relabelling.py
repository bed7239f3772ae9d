"""Labels the jaxpr of any function of a graph's variables with the graph's channels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend import core as jex_core
import numpy as np

from gatprune_jax.channels.graph import FROZEN, ChannelGraph
from gatprune_jax.channels.mirrors import mirrored_leaves
from gatprune_jax.channels.rules.axes import JointAxis
from gatprune_jax.channels.rules.classes import LabelClasses
from gatprune_jax.channels.tracing.labelling import Program, Source, label
from gatprune_jax.errors import InputError


class Binding(NamedTuple):
  """A function's program, labelled with the channels of a graph."""

  program: Program
  classes: LabelClasses
  channel_of: Callable[[np.ndarray], np.ndarray]  # labels [size] -> channel ids [size]
  out_treedef: Any
  states: frozenset[int]  # positions of the arguments whose arrays are labelled like the variables

  def refuse_split_outputs(self) -> None:
    """Checks that channels can be cut from every output of the program.

    Raises:
      InputError: if an output has its channels split over several axes, so that the elements left
        after a cut form no array.
    """
    for axes in self.program.outputs:
      for part in axes:
        if isinstance(part, JointAxis) and (self.channel_of(part.labels.ravel()) != FROZEN).any():
          raise InputError(
            "an output has its channels split over several axes, from which none can be cut: "
            "return them on one axis"
          )


class Relabelled(NamedTuple):
  """A program labelled with numbered channels."""

  program: Program
  classes: LabelClasses
  ties: dict[int, int]  # {channel: the lower channel that this program ties it to}
  frozen: dict[int, str]  # {channel: why it cannot be removed from this program}


def relabel(
  closed: jex_core.ClosedJaxpr,
  leaf_ids: list[tuple[np.ndarray, ...]],
  num_channels: int,
  of_input: dict[int, tuple[np.ndarray, ...]] | None = None,
) -> Relabelled:
  """Labels a program so that all elements of one channel have the same label.

  Args:
    closed: the program, whose first inputs are the variables' leaves.
    leaf_ids: channel ids of every axis of every leaf; FROZEN for an element without a channel.
    num_channels: number of channels.
    of_input: {index of a further input: channel ids of its axes}; the others are unlabelled.
  """
  classes = LabelClasses()
  channels = classes.fresh(num_channels)
  # The label of all frozen elements. It is the last entry of `seeds`, so FROZEN = -1 indexes it.
  never = classes.fresh(1)
  classes.freeze(never, "frozen in the graph")
  seeds = np.append(channels, never)
  known = {**dict(enumerate(leaf_ids)), **(of_input or {})}
  inputs = [
    tuple(seeds[ids] for ids in known[i]) if i in known else (None,) * len(value.shape)
    for i, value in enumerate(closed.in_avals)
  ]
  sources = [
    Source(i < len(leaf_ids), i < len(leaf_ids), i if i in known else None)
    for i in range(len(inputs))
  ]
  program = label(closed, classes, inputs, sources)
  classes.settle()
  roots = dict(zip(channels.tolist(), classes.find(channels).tolist(), strict=True))
  ties = {channel: root for channel, root in roots.items() if root != channel}
  reasons = {channel: classes.reason(channel) for channel in roots}
  return Relabelled(
    program, classes, ties, {c: why for c, why in reasons.items() if why is not None}
  )


def bind(graph: ChannelGraph, fn: Callable, args: tuple) -> Binding:
  """Labels the program of `fn(*args)`, at the dense shapes, with the graph's channels.

  An argument whose arrays mirror the variables, such as the state of an optimiser, is labelled as
  the variables are. If a layer uses an array of it as its kernel, the argument is taken for the
  weights of another network, such as a teacher, and is not labelled.

  Args:
    graph: the channels.
    fn: any traceable function whose first argument is the graph's variables.
    args: arrays or `jax.ShapeDtypeStruct`s; the first is the variables.

  Raises:
    InputError: if the variables are not the graph's, or if fn ties channels together, or makes
      them impossible to remove, where the traced function did not.
  """
  graph.check_variables(args[0])
  closed, out_shape = jax.make_jaxpr(fn, return_shape=True)(*args)
  laid, states = _with_states(graph, closed, args[1:])
  if refused := {*laid.ties, *laid.frozen}:
    channel = min(refused)
    why = laid.frozen.get(channel) or f"it is tied to channel {laid.ties[channel]}"
    raise InputError(
      f"channel {channel} ({_where(graph, channel)}) cannot be removed from this function as it "
      f"can from the traced one: {why}. If it differentiates the network, differentiate the masked "
      "or the compact function instead"
    )

  def channel_of(labels: np.ndarray) -> np.ndarray:
    found = laid.classes.find(labels)
    return np.where(found < graph.num_channels, found, FROZEN)

  return Binding(laid.program, laid.classes, channel_of, jax.tree.structure(out_shape), states)


def _with_states(
  graph: ChannelGraph, closed: jex_core.ClosedJaxpr, args: tuple
) -> tuple[Relabelled, frozenset[int]]:
  """Labels a program and the arguments that are states of the variables.

  Args:
    graph: the channels.
    closed: the program, whose first inputs are the variables' leaves.
    args: the further arguments of the function.

  Returns:
    The labelled program, and the positions of the states, of which the first argument after the
    variables has position 1.
  """
  start, mirrors = len(graph.leaves), {}  # mirrors: {position: {input: channel ids of its axes}}
  for position, leaves in enumerate(mirrored_leaves(graph, args), 1):
    inputs = {i: leaf.axes for i, leaf in enumerate(leaves, start) if leaf is not None}
    start += len(leaves)
    if inputs:
      mirrors[position] = inputs
  while True:
    of_input = {i: axes for inputs in mirrors.values() for i, axes in inputs.items()}
    laid = relabel(closed, [leaf.axes for leaf in graph.leaves], graph.num_channels, of_input)
    kernels = {step.leaf for step in laid.program.contractions()}
    states = {at: inputs for at, inputs in mirrors.items() if not kernels & inputs.keys()}
    if len(states) == len(mirrors):
      return laid, frozenset(states)
    mirrors = states


def _where(graph: ChannelGraph, channel: int) -> str:
  group = graph.groups[graph.group_of[channel]]
  return f"index {int(np.flatnonzero(group.channels == channel)[0])} of {group.name}"
