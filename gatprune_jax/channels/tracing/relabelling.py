"""Labels the jaxpr of any function of a graph's variables with the graph's channels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend import core as jex_core
import numpy as np

from gatprune_jax.channels.graph import FROZEN, ChannelGraph
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
  closed: jex_core.ClosedJaxpr, leaf_ids: list[tuple[np.ndarray, ...]], num_channels: int
) -> Relabelled:
  """Labels a program so that all elements of one channel have the same label.

  Args:
    closed: the program, whose first inputs are the variables' leaves.
    leaf_ids: channel ids of every axis of every leaf; FROZEN for an element without a channel.
    num_channels: number of channels.
  """
  classes = LabelClasses()
  channels = classes.fresh(num_channels)
  # The label of all frozen elements. It is the last entry of `seeds`, so FROZEN = -1 indexes it.
  never = classes.fresh(1)
  classes.freeze(never, "frozen in the graph")
  seeds = np.append(channels, never)
  rest = closed.in_avals[len(leaf_ids) :]
  inputs = [tuple(seeds[ids] for ids in axes) for axes in leaf_ids]
  inputs += [(None,) * len(value.shape) for value in rest]
  sources = [Source(True, True, i) for i in range(len(leaf_ids))] + [Source(False, False)] * len(
    rest
  )
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
  laid = relabel(closed, [leaf.axes for leaf in graph.leaves], graph.num_channels)
  if refused := {*laid.ties, *laid.frozen}:
    channel = min(refused)
    why = laid.frozen.get(channel) or f"it is tied to channel {laid.ties[channel]}"
    raise InputError(
      f"channel {channel} ({_where(graph, channel)}) cannot be removed from this function as it "
      f"can from the traced one: {why}"
    )

  def channel_of(labels: np.ndarray) -> np.ndarray:
    found = laid.classes.find(labels)
    return np.where(found < graph.num_channels, found, FROZEN)

  return Binding(laid.program, laid.classes, channel_of, jax.tree.structure(out_shape))


def _where(graph: ChannelGraph, channel: int) -> str:
  group = graph.groups[graph.group_of[channel]]
  return f"index {int(np.flatnonzero(group.channels == channel)[0])} of {group.name}"
