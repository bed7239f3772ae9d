"""Lays a graph's channels over the jaxpr of any function of the same variables."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from gatprune_jax.channels.axes import Part
from gatprune_jax.channels.classes import LabelClasses
from gatprune_jax.channels.graph import FROZEN, ChannelGraph
from gatprune_jax.channels.labelling import Program, Source, label
from gatprune_jax.errors import InputError


class Binding(NamedTuple):
  """A function's program, labelled with the channels of a graph."""

  program: Program
  classes: LabelClasses
  channel_of: Callable[[np.ndarray], np.ndarray]  # labels [size] -> channel ids [size]
  out_treedef: Any

  def refuse_split_outputs(self) -> None:
    """For programs whose channels are cut.

    Raises:
      InputError: where an output has channels on several axes, so that what is left is no array.
    """
    for axes in self.program.outputs:
      for part in axes:
        if isinstance(part, Part) and (self.channel_of(part.labels.ravel()) != FROZEN).any():
          raise InputError(
            "an output has its channels split over several axes, from which none can be cut: "
            "return them on one axis"
          )


def bind(graph: ChannelGraph, fn: Callable, args: tuple) -> Binding:
  """Labels `fn(*args)` with the graph's channels; args are avals, at the dense shapes.

  Args:
    graph: the channels.
    fn: any traceable function whose first argument is the graph's variables.
    args: arrays or `jax.ShapeDtypeStruct`s; the first is the variables.

  Raises:
    InputError: where the variables are not the graph's, or where fn ties channels together, or
      uses them in a way, that the traced function did not.
  """
  graph.check_variables(args[0])
  closed, out_shape = jax.make_jaxpr(fn, return_shape=True)(*args)

  classes = LabelClasses()
  channels = classes.fresh(graph.num_channels)
  never = classes.fresh(1)  # the one label of everything frozen: id -1 indexes it
  classes.freeze(never, "frozen in the graph")
  seeds = np.append(channels, never)
  inputs = [tuple(seeds[ids] for ids in leaf.axes) for leaf in graph.leaves]
  rest = jax.tree.leaves(args[1:])
  inputs += [(None,) * np.ndim(value) for value in rest]
  sources = [Source(True, i) for i in range(len(graph.leaves))] + [Source(False)] * len(rest)
  program = label(closed, classes, inputs, sources)

  roots = classes.find(channels)
  for channel, root in zip(channels.tolist(), roots.tolist(), strict=True):
    reason = classes.reason(channel)
    if root != channel or reason is not None:
      why = reason or f"it is tied to channel {root}"
      raise InputError(
        f"channel {channel} ({_where(graph, channel)}) cannot be removed from this function as it "
        f"can from the traced one: {why}"
      )

  def channel_of(labels: np.ndarray) -> np.ndarray:
    found = classes.find(labels)
    return np.where(found < graph.num_channels, found, FROZEN)

  return Binding(program, classes, channel_of, jax.tree.structure(out_shape))


def _where(graph: ChannelGraph, channel: int) -> str:
  group = graph.groups[graph.group_of[channel]]
  return f"index {int(np.flatnonzero(group.channels == channel)[0])} of {group.name}"
