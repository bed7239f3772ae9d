"""Physically smaller networks: variables cut to the kept channels, functions at the new shapes."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import numpy as np

from gatprune_jax.channels.graph import FROZEN, ChannelGraph, Leaf, check_mask_shape
from gatprune_jax.channels.interpreter import Interpreter
from gatprune_jax.channels.tracing.relabelling import bind
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


def compact(
  graph: ChannelGraph, fn: Callable, variables: Any, mask: Any, allow_empty: bool = False
) -> Compact:
  """Removes channels from a function and its variables.

  For every mask that keeps a channel in each group,
  `masked(graph, fn)(variables, mask, x) == small.apply(small.variables, x)` up to rounding.

  Args:
    graph: from `trace`, with the same variables.
    fn: any traceable function whose first argument is the variables, in eval or train mode.
    variables: the dense variables.
    mask: zeros and ones `[num_channels]`, 1 = keep.
    allow_empty: whether the mask may remove all channels of groups that have a bypass, so that
      the layers that read them compute nothing.

  Raises:
    InputError: where the mask has another shape, other values, or empties a group that it may not.
  """
  small_fn = compact_function(graph, fn, mask, allow_empty)
  return Compact(small_fn, compact_variables(graph, variables, mask, allow_empty))


def compact_variables(
  graph: ChannelGraph, variables: Any, mask: Any, allow_empty: bool = False
) -> Any:
  """Keeps the mask's channels on every axis of every leaf; see `compact`."""
  keep = checked_mask(graph, mask, allow_empty)
  graph.check_variables(variables)
  cut = [
    _cut(array, leaf, keep)
    for array, leaf in zip(jax.tree.leaves(variables), graph.leaves, strict=True)
  ]
  return jax.tree.unflatten(graph.treedef, cut)


def compact_state(graph: ChannelGraph, state: Any, mask: Any, allow_empty: bool = False) -> Any:
  """Keeps the mask's channels in whatever holds arrays like the variables: an optimiser's state.

  An array belongs to the variable whose path (with or without Flax's collection) its own path ends
  with. Scalars and arrays that belong to none stay as they are.

  Args:
    graph: from `trace`.
    state: a pytree, for example of moments or averages.
    mask: zeros and ones `[num_channels]`, 1 = keep.
    allow_empty: see `compact`.

  Raises:
    InputError: where an array has the path of a variable, but not its shape, or of several.
  """
  keep = checked_mask(graph, mask, allow_empty)
  owners: dict[str, list[Leaf]] = {}
  for leaf in graph.leaves:
    if rest := leaf.path.partition("/")[2]:
      owners.setdefault(rest, []).append(leaf)
  owners.update({leaf.path: [leaf] for leaf in graph.leaves})

  def cut(path: tuple, array: Any) -> Any:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    ends = [name.split("/", k)[-1] for k in range(name.count("/") + 1)]
    found = next((owners[end] for end in ends if end in owners), [])
    if not found or not np.shape(array):
      return array
    leaf, *others = found
    if others:
      raise InputError(
        f"{name} may belong to {leaf.path} or to {others[0].path}: give it the whole path of its "
        "variable"
      )
    if np.shape(array) != leaf.shape:
      raise InputError(
        f"{name} has shape {np.shape(array)}, but variable {leaf.path} has {leaf.shape}: only "
        "arrays of the variables' shapes can be cut"
      )
    return _cut(array, leaf, keep)

  return jax.tree.map_with_path(cut, state)


def compact_function(
  graph: ChannelGraph, fn: Callable, mask: Any, allow_empty: bool = False
) -> Callable[..., Any]:
  """Returns fn at the shapes that remain: `small_fn(small_variables, *args)`, jitted."""
  keep = checked_mask(graph, mask, allow_empty)

  def small_fn(variables: Any, *args: Any) -> Any:
    _check_cut(graph, variables, keep)
    binding = bind(graph, fn, (dense_shapes(graph, variables), *args))
    binding.refuse_split_outputs()
    interpreter = Interpreter(binding.classes, binding.channel_of, keep=keep[None])
    out = interpreter.run(binding.program, jax.tree.leaves((variables, *args)))
    return jax.tree.unflatten(binding.out_treedef, out)

  return jax.jit(small_fn)


def _check_cut(graph: ChannelGraph, variables: Any, keep: np.ndarray) -> None:
  """Raises InputError unless the variables have the shapes that the mask leaves."""
  if jax.tree.structure(variables) != graph.treedef:
    graph.check_variables(variables)  # tells how they differ
  for leaf, array in zip(graph.leaves, jax.tree.leaves(variables), strict=True):
    shape = tuple(len(kept) for kept in kept_positions(leaf, keep))
    if np.shape(array) != shape:
      raise InputError(
        f"variable {leaf.path} has shape {np.shape(array)}, but under this mask it has {shape}: "
        "pass the compact network's variables"
      )


def dense_shapes(graph: ChannelGraph, variables: Any) -> Any:
  """What the variables were before they were cut, as `jax.ShapeDtypeStruct`s."""
  specs = [
    jax.ShapeDtypeStruct(leaf.shape, array.dtype)
    for leaf, array in zip(graph.leaves, jax.tree.leaves(variables), strict=True)
  ]
  return jax.tree.unflatten(graph.treedef, specs)


def kept_positions(leaf: Leaf, keep: np.ndarray) -> list[np.ndarray]:
  """Per axis of a leaf, where the elements are that a mask, bool `[num_channels]`, keeps."""
  keep = np.append(keep, True)  # id -1: frozen
  return [np.flatnonzero(keep[ids]) for ids in leaf.axes]


def _cut(array: Any, leaf: Leaf, keep: np.ndarray) -> Any:
  cut = [axis for axis, ids in enumerate(leaf.axes) if (ids != FROZEN).any()]
  positions = kept_positions(leaf, keep)
  if not cut:
    return array
  # NumPy where it can be: JAX would compile a program for every shape.
  small = array if isinstance(array, jax.core.Tracer) else np.asarray(array)
  for axis in cut:
    small = small.take(positions[axis], axis=axis)
  return jax.device_put(small)


def checked_mask(graph: ChannelGraph, mask: Any, allow_empty: bool) -> np.ndarray:
  """The mask as bool `[num_channels]`."""
  mask = np.asarray(mask)
  check_mask_shape(mask, graph.num_channels)
  if not np.isin(mask, (0, 1)).all():
    raise InputError(
      f"the mask holds {mask[~np.isin(mask, (0, 1))][0]}: a channel is kept (1) or removed (0)"
    )
  keep = mask.astype(bool)
  for group in graph.groups:
    if not keep[group.channels].any() and not (allow_empty and group.has_bypass):
      way_out = ", or pass allow_empty=True: another path bypasses it" if group.has_bypass else ""
      raise InputError(
        f"the mask removes all {len(group.channels)} channels of {group.name}: keep at least one"
        f"{way_out}"
      )
  return keep
