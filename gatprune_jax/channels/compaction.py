"""Builds smaller networks: cuts variables to the kept channels and runs functions on them."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import numpy as np

from gatprune_jax.channels.compensation import compensate
from gatprune_jax.channels.graph import FROZEN, ChannelGraph, Leaf, check_mask_shape
from gatprune_jax.channels.interpreter import Interpreter
from gatprune_jax.channels.mirrors import Mirror, find_mirrors
from gatprune_jax.channels.origin import Origin, cut
from gatprune_jax.channels.tracing.function import check_arguments
from gatprune_jax.channels.tracing.relabelling import bind
from gatprune_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Compact:
  """A network with channels removed.

  Attributes:
    apply: the original function at the new shapes, jitted, called as `apply(variables, *args)`.
    variables: the kept part of the original variables, in the same tree.
    origin: which elements of the first network they are; None if that is not known.
  """

  apply: Callable[..., Any]
  variables: Any
  origin: Origin | None = None


def compact(
  graph: ChannelGraph,
  fn: Callable,
  variables: Any,
  mask: Any,
  allow_empty: bool = False,
  images: Any = None,
) -> Compact:
  """Removes channels from a function and its variables.

  For every mask that keeps a channel in each group,
  `masked(graph, fn)(variables, mask, x) == small.apply(small.variables, x)` up to rounding.

  Args:
    graph: the channels that `trace` returned for the same variables.
    fn: any traceable function whose first argument is the variables, in eval or train mode.
    variables: the dense variables.
    mask: zeros and ones `[num_channels]`, 1 = keep.
    allow_empty: whether the mask may remove all channels of a group that has a bypass. A layer
      without remaining inputs is then not evaluated and its result is zero.
    images: inputs `[n, ...]`, without labels, with which `compensate` lets the kernels take over
      what the removed channels contributed; fn is then the network in eval mode. None leaves the
      kept weights as they are.

  Raises:
    InputError: the mask has another shape or other values, it removes all channels of a group that
      must not become empty, or `compensate` refuses the images.
  """
  small_fn = compact_function(graph, fn, mask, allow_empty)
  if images is not None:
    variables = compensate(graph, fn, variables, mask, images)
  small_variables = compact_variables(graph, variables, mask, allow_empty)
  return Compact(small_fn, small_variables, cut(None, graph, mask))


def compact_variables(
  graph: ChannelGraph, variables: Any, mask: Any, allow_empty: bool = False
) -> Any:
  """Cuts every axis of every variable to the channels that the mask keeps.

  Args:
    graph: the channels that `trace` returned for the same variables.
    variables: the dense variables.
    mask: zeros and ones `[num_channels]`, 1 = keep.
    allow_empty: whether the mask may remove all channels of a group that has a bypass.

  Returns:
    The smaller variables, in the same tree.

  Raises:
    InputError: the mask has another shape or other values, it removes all channels of a group that
      must not become empty, or the variables are not the graph's.
  """
  keep = checked_mask(graph, mask, allow_empty)
  graph.check_variables(variables)
  smaller = [
    _cut(array, leaf, keep)
    for array, leaf in zip(jax.tree.leaves(variables), graph.leaves, strict=True)
  ]
  return jax.tree.unflatten(graph.treedef, smaller)


def compact_state(graph: ChannelGraph, state: Any, mask: Any, allow_empty: bool = False) -> Any:
  """Cuts a pytree whose arrays mirror the variables, such as the state of an optimiser.

  `find_mirrors` says which variable an array belongs to. Scalars, and arrays that belong to no
  variable, stay unchanged.

  Args:
    graph: the channels that `trace` returned for the variables.
    state: a pytree, for example of moments or averages.
    mask: zeros and ones `[num_channels]`, 1 = keep.
    allow_empty: whether the mask may remove all channels of a group that has a bypass.

  Raises:
    InputError: an array may belong to several variables, an array has another shape than its
      variable, or the mask is one that `compact_variables` refuses.
  """
  keep = checked_mask(graph, mask, allow_empty)

  def cut_array(mirror: Mirror, array: Any) -> Any:
    if not mirror.leaves:
      return array
    leaf, *others = mirror.leaves
    if others:
      raise InputError(
        f"{mirror.path} may belong to {leaf.path} or to {others[0].path}: give it the whole path "
        "of its variable"
      )
    if mirror.shape != leaf.shape:
      if not mirror.is_named:  # an array at the same index of another sequence
        return array
      raise InputError(
        f"{mirror.path} has shape {mirror.shape}, but variable {leaf.path} has {leaf.shape}: only "
        "arrays of the variables' shapes can be cut"
      )
    return _cut(array, leaf, keep)

  arrays, treedef = jax.tree.flatten(state)
  return jax.tree.unflatten(treedef, map(cut_array, find_mirrors(graph, state), arrays))


def compact_function(
  graph: ChannelGraph, fn: Callable, mask: Any, allow_empty: bool = False
) -> Callable[..., Any]:
  """Returns fn at the shapes that remain: `small_fn(small_variables, *args)`, compiled.

  An argument whose arrays mirror the variables, such as the state of an optimiser, is cut as well,
  by `compact_state`. An argument that the layers use as weights, such as those of a dense teacher,
  is passed whole.

  Args:
    graph: the channels that `trace` returned for the same variables.
    fn: any traceable function whose first argument is the variables, in eval or train mode.
    mask: zeros and ones `[num_channels]`, 1 = keep.
    allow_empty: whether the mask may remove all channels of a group that has a bypass.

  Raises:
    InputError: the mask has another shape or other values, or it removes all channels of a group
      that must not become empty. The returned function raises it for flags and keywords.
  """
  keep = checked_mask(graph, mask, allow_empty)

  def small_fn(variables: Any, *args: Any) -> Any:
    _check_cut(graph, variables, keep)
    binding = bind(graph, fn, (dense_shapes(graph, variables), *_uncut(graph, args, keep)))
    binding.refuse_split_outputs()
    _check_states(graph, args, keep, binding.states)
    interpreter = Interpreter(binding.classes, binding.channel_of, keep=keep[None])
    out = interpreter.run(binding.program, jax.tree.leaves((variables, *args)))
    return jax.tree.unflatten(binding.out_treedef, out)

  compiled = jax.jit(small_fn)

  def checked(variables: Any, *args: Any, **keywords: Any) -> Any:
    check_arguments(args, keywords)
    return compiled(variables, *args)

  return checked


def _uncut(graph: ChannelGraph, args: tuple, keep: np.ndarray) -> list[Any]:
  """Replaces the arrays that mirror cut variables by `ShapeDtypeStruct`s of the dense shapes."""

  def whole(mirror: Mirror, array: Any) -> Any:
    if len(mirror.leaves) != 1 or mirror.shape != _cut_shape(mirror.leaves[0], keep):
      return array
    return jax.ShapeDtypeStruct(mirror.leaves[0].shape, array.dtype)

  dense = []
  for arg in args:
    arrays, treedef = jax.tree.flatten(arg)
    dense.append(jax.tree.unflatten(treedef, map(whole, find_mirrors(graph, arg), arrays)))
  return dense


def _check_states(
  graph: ChannelGraph, args: tuple, keep: np.ndarray, states: frozenset[int]
) -> None:
  """Raises InputError unless states are cut, and what layers use as weights is whole."""
  for position, arg in enumerate(args, 1):
    for mirror in find_mirrors(graph, arg):
      if len(mirror.leaves) != 1:
        continue
      leaf = mirror.leaves[0]
      cut, what = _cut_shape(leaf, keep), f"{mirror.path} of argument {position}"
      if position in states and mirror.shape == leaf.shape != cut:
        raise InputError(
          f"{what} has shape {mirror.shape}, but variable {leaf.path} is cut to {cut} under this "
          "mask: cut the state with `compact_state`"
        )
      if position not in states and mirror.shape == cut != leaf.shape:
        raise InputError(
          f"{what} has shape {cut}, but layers use this argument as weights of their own, which "
          f"are not cut: pass it whole, of shape {leaf.shape}"
        )


def _cut_shape(leaf: Leaf, keep: np.ndarray) -> tuple[int, ...]:
  return tuple(len(kept) for kept in kept_positions(leaf, keep))


def _check_cut(graph: ChannelGraph, variables: Any, keep: np.ndarray) -> None:
  """Raises InputError unless the variables have the shapes that the mask leaves."""
  if jax.tree.structure(variables) != graph.treedef:
    graph.check_variables(variables)  # its error says how the two trees differ
  for leaf, array in zip(graph.leaves, jax.tree.leaves(variables), strict=True):
    if np.shape(array) != (shape := _cut_shape(leaf, keep)):
      raise InputError(
        f"variable {leaf.path} has shape {np.shape(array)}, but under this mask it has {shape}: "
        "pass the compact network's variables"
      )


def dense_shapes(graph: ChannelGraph, variables: Any) -> Any:
  """Returns `jax.ShapeDtypeStruct`s of the variables before they were cut, in the same tree."""
  specs = [
    jax.ShapeDtypeStruct(leaf.shape, array.dtype)
    for leaf, array in zip(graph.leaves, jax.tree.leaves(variables), strict=True)
  ]
  return jax.tree.unflatten(graph.treedef, specs)


def kept_positions(leaf: Leaf, keep: np.ndarray) -> list[np.ndarray]:
  """Returns, for each axis of a leaf, the positions that keep, bool `[num_channels]`, keeps."""
  keep = np.append(keep, True)  # channel id -1 (frozen) indexes this entry
  return [np.flatnonzero(keep[ids]) for ids in leaf.axes]


def _cut(array: Any, leaf: Leaf, keep: np.ndarray) -> Any:
  cut_axes = [axis for axis, ids in enumerate(leaf.axes) if (ids != FROZEN).any()]
  positions = kept_positions(leaf, keep)
  if not cut_axes:
    return array
  # NumPy cuts concrete arrays, because JAX would compile a program for every new shape.
  small = array if isinstance(array, jax.core.Tracer) else np.asarray(array)
  for axis in cut_axes:
    small = small.take(positions[axis], axis=axis)
  return jax.device_put(small)


def checked_mask(graph: ChannelGraph, mask: Any, allow_empty: bool) -> np.ndarray:
  """Checks a mask and returns it as bool `[num_channels]`.

  Args:
    graph: the channels of the network.
    mask: zeros and ones `[num_channels]`, 1 = keep.
    allow_empty: whether the mask may remove all channels of a group that has a bypass.

  Raises:
    InputError: the mask has another shape or other values, or it removes all channels of a group
      that must not become empty.
  """
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
