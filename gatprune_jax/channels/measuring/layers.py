"""The layers of a network as programs of their own, at any numbers of kept channels."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.graph import FROZEN, ChannelGraph, Layer
from gatprune_jax.channels.rules import table as rules
from gatprune_jax.channels.rules.axes import resized
from gatprune_jax.channels.tracing.labelling import Step
from gatprune_jax.channels.tracing.layers import layer_steps
from gatprune_jax.channels.tracing.relabelling import Binding
from gatprune_jax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class LayerProgram:
  """A layer from which channels can be removed, as a program of its own.

  Attributes:
    layer: the layer of the graph.
    step: its equation, with labels.
    times: how often a forward pass evaluates it.
    channel_of: maps labels `[size]` to channel ids `[size]`.
  """

  layer: Layer
  step: Step
  times: int
  channel_of: Callable[[np.ndarray], np.ndarray]

  @property
  def num_channels(self) -> tuple[int, ...]:
    """Number of channels on each of the layer's `cut_axes`."""
    return tuple(len(_in_order(ids)) for ids in self.layer.cut_axes)

  def widths(self, kept: Sequence[int]) -> tuple[int, ...]:
    """Returns the number of elements on each of `cut_axes` where the first channels are kept.

    Args:
      kept: how many channels each axis keeps.
    """
    return tuple(
      int(np.isin(ids, [FROZEN, *_in_order(ids)[:count]]).sum())
      for ids, count in zip(self.layer.cut_axes, kept, strict=True)
    )

  def signature(self) -> tuple:
    """Returns what two layers have in common if and only if they cost the same at all widths."""
    eqn = self.step.eqn
    operands = [(var.aval.shape, str(var.aval.dtype)) for var in eqn.invars]
    axes = [self._places(axes) for axes in (*self.step.inputs, *self.step.outputs)]
    params = sorted((name, str(value)) for name, value in eqn.params.items())
    return (eqn.primitive.name, str(operands), str(params), *axes)

  def program(self, kept: Sequence[int]) -> tuple[Callable, list[jax.ShapeDtypeStruct]]:
    """Returns the layer at kept channels as a function, and the shapes of its arguments.

    The arguments are the layer's two operands, and a factor and an offset of each output channel,
    which stand, with a rectifier, for the element-wise operations that a layer is followed by: XLA
    fuses the operations of a batch norm and of an activation function into one pass.

    Args:
      kept: how many channels each of `cut_axes` keeps.
    """
    eqn, step = self.step.eqn, self.step
    allowed = [_in_order(ids)[:count] for ids, count in zip(self.layer.cut_axes, kept, strict=True)]

    def is_kept(labels: np.ndarray) -> np.ndarray:
      ids = self.channel_of(labels)
      return (ids == FROZEN) | np.isin(ids, allowed[_axis_of(self.layer, ids)])

    params = rules.RULES[eqn.primitive.name].params(eqn, step.inputs, step.outputs, is_kept)
    operands = [
      jax.ShapeDtypeStruct(resized(var.aval.shape, axes, is_kept), var.aval.dtype)
      for var, axes in zip(eqn.invars, step.inputs, strict=True)
    ]
    out, where = eqn.outvars[0].aval, step.contraction.out
    sizes = resized(out.shape, step.outputs[0], is_kept)
    channels = tuple(size if k == where else 1 for k, size in enumerate(sizes))
    each = jax.ShapeDtypeStruct(channels, out.dtype)

    def run(lhs: jax.Array, rhs: jax.Array, factor: jax.Array, offset: jax.Array) -> jax.Array:
      y = eqn.primitive.bind(lhs, rhs, **params)
      return jnp.maximum(y * factor + offset, 0)

    return run, [*operands, each, each]

  def what(self) -> str:
    """Returns the layer in words: its operation, and the dense shapes of its operands."""
    shapes = " ".join(str(list(var.aval.shape)) for var in self.step.eqn.invars)
    return f"{self.layer.kind} {shapes}"

  def _places(self, axes: Sequence[Any]) -> str:
    """Returns for every axis of an array which channels of which of `cut_axes` its elements are."""
    found = []
    for labels in axes:
      ids = None if labels is None else self.channel_of(labels)
      if ids is None or (ids == FROZEN).all():
        found.append(None)
        continue
      index = _axis_of(self.layer, ids)
      place = {channel: n for n, channel in enumerate(_in_order(self.layer.cut_axes[index]))}
      found.append((index, [place.get(channel, FROZEN) for channel in ids.tolist()]))
    return str(found)


def layer_programs(graph: ChannelGraph, binding: Binding) -> list[LayerProgram]:
  """Returns the layers from which channels can be removed, in network order.

  Args:
    graph: the network's channels.
    binding: the network's program at the batch that is measured, labelled by the graph.

  Raises:
    InputError: the program has other layers than the traced one.
  """
  steps = layer_steps(binding.program)
  if len(steps) != len(graph.layers):
    raise InputError(
      f"the network has {len(steps)} layers at the batch that is measured, but {len(graph.layers)} "
      "at the one that it was traced with: latency needs a network whose layers are the same"
    )
  return [
    LayerProgram(layer, step, times, binding.channel_of)
    for layer, (step, times) in zip(graph.layers, steps, strict=True)
    if layer.cut_axes
  ]


def _in_order(ids: np.ndarray) -> list[int]:
  """Returns the channels on an axis, in the order in which they appear."""
  return list(dict.fromkeys(ids[ids != FROZEN].tolist()))


def _axis_of(layer: Layer, ids: np.ndarray) -> int:
  """Returns which of a layer's `cut_axes` holds the channels of an axis of its equation."""
  channels = set(ids[ids != FROZEN].tolist())
  return next(k for k, axis in enumerate(layer.cut_axes) if channels <= set(axis.tolist()))
