"""Physically smaller networks: variables cut to the kept channels, functions at the new shapes."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import numpy as np

from gatprune_jax.channels.binding import bind
from gatprune_jax.channels.graph import FROZEN, ChannelGraph
from gatprune_jax.channels.interpreter import Interpreter
from gatprune_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Compact:
  """A network with channels removed.

  Attributes:
    apply: `apply(variables, *args)`, jitted, the original function at the new shapes.
    variables: the kept part of the original variables, in the same tree.
  """

  apply: Callable[..., Any]
  variables: Any


def compact(graph: ChannelGraph, fn: Callable, variables: Any, mask: Any) -> Compact:
  """Removes channels from a function and its variables.

  For every mask that keeps a channel in each group,
  `masked(graph, fn)(variables, mask, x) == small.apply(small.variables, x)` up to rounding.

  Args:
    graph: from `trace`, with the same variables.
    fn: any traceable function whose first argument is the variables, in eval or train mode.
    variables: the dense variables.
    mask: zeros and ones `[num_channels]`, 1 = keep.

  Raises:
    InputError: where the mask has another shape, other values, or empties a group.
  """
  return Compact(compact_function(graph, fn, mask), compact_variables(graph, variables, mask))


def compact_variables(graph: ChannelGraph, variables: Any, mask: Any) -> Any:
  """Keeps the mask's channels on every axis of every leaf of the variables."""
  keep = _checked(graph, mask)
  leaves, treedef = jax.tree.flatten(variables)
  if treedef != graph.treedef:
    raise InputError(
      f"the variables have the structure {treedef}, but the graph was traced with {graph.treedef}"
    )
  cut = []
  for array, leaf in zip(leaves, graph.leaves, strict=True):
    for axis, ids in enumerate(leaf.axes):
      if (ids != FROZEN).any():
        array = jax.numpy.take(array, np.flatnonzero(np.append(keep, True)[ids]), axis=axis)
    cut.append(array)
  return jax.tree.unflatten(treedef, cut)


def compact_function(graph: ChannelGraph, fn: Callable, mask: Any) -> Callable[..., Any]:
  """Returns fn at the shapes that remain: `small_fn(small_variables, *args)`, jitted."""
  keep = _checked(graph, mask)

  def small_fn(variables: Any, *args: Any) -> Any:
    dense = jax.tree.unflatten(
      graph.treedef,
      [
        jax.ShapeDtypeStruct(leaf.shape, array.dtype)
        for leaf, array in zip(graph.leaves, jax.tree.leaves(variables), strict=True)
      ],
    )
    binding = bind(graph, fn, (dense, *args))
    interpreter = Interpreter(binding.classes, binding.channel_of, keep=keep)
    out = interpreter.run(binding.program, jax.tree.leaves((variables, *args)))
    return jax.tree.unflatten(binding.out_treedef, out)

  return jax.jit(small_fn)


def _checked(graph: ChannelGraph, mask: Any) -> np.ndarray:
  """The mask as bool `[num_channels]`."""
  mask = np.asarray(mask)
  if mask.shape != (graph.num_channels,):
    raise InputError(
      f"the mask has shape {mask.shape}, but this network has {graph.num_channels} channels"
    )
  if not np.isin(mask, (0, 1)).all():
    raise InputError(
      f"the mask holds {mask[~np.isin(mask, (0, 1))][0]}: a channel is kept (1) or removed (0)"
    )
  keep = mask.astype(bool)
  for group in graph.groups:
    if not keep[group.channels].any():
      raise InputError(
        f"the mask removes all {len(group.channels)} channels of {group.name}: keep at least one"
      )
  return keep
