"""Finds the channels of a network from its jaxpr alone: nothing is declared, no model is edited."""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.axes import WINDOW, Axes, freeze_axes
from gatprune_jax.channels.classes import LabelClasses
from gatprune_jax.channels.graph import FROZEN, ChannelGraph, Group, Layer, Leaf
from gatprune_jax.channels.labelling import Source, Step, label
from gatprune_jax.errors import InputError

_OUTPUT = "output of the model"


def trace(apply_fn: Callable, variables: Any, x: Any) -> ChannelGraph:
  """Finds the removable channels of `apply_fn(variables, x) -> outputs`.

  Every axis of every variable starts with one label per element. Walking the jaxpr, each
  operation merges the labels that must go together; a convolution or dot product merges its
  contracted axes and is recorded as a layer. What meets the model's input or output, or an
  operation without a rule, is frozen. A class of labels that is not frozen, is produced by a
  layer and read by a layer is one channel.

  Args:
    apply_fn: a pure function, in eval mode.
    variables: pytree of float arrays, or of `jax.ShapeDtypeStruct`.
    x: example input, an array or pytree of arrays whose first axis is the batch.

  Returns:
    The graph. MACs are counted for one example of x.

  Raises:
    InputError: where the variables hold no arrays or values that are not finite, x has no batch
      axis, or no channel can be removed.
  """
  paths_and_leaves, treedef = jax.tree.flatten_with_path(variables)
  paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths_and_leaves]
  arrays = [leaf for _, leaf in paths_and_leaves]
  batch = _check_inputs(paths, arrays, x)
  closed = jax.make_jaxpr(apply_fn)(variables, x)

  classes = LabelClasses()
  leaf_axes: list[Axes] = [tuple(classes.fresh(n) for n in leaf.shape) for leaf in arrays]
  x_axes = [(None,) * len(leaf.shape) for leaf in jax.tree.leaves(x)]
  sources = [Source(True, i) for i in range(len(arrays))] + [Source(False)] * len(x_axes)
  program = label(closed, classes, leaf_axes + x_axes, sources)
  for axes in program.outputs:
    freeze_axes(classes, axes, _OUTPUT)

  steps = program.contractions()
  channel_of, num_channels = _number_channels(classes, steps)
  if num_channels == 0:
    raise InputError(
      f"no channel of this network can be removed: found {len(steps)} layers, every channel of "
      "which is tied to the model's input, its output or an operation without a rule"
    )
  leaves = tuple(
    Leaf(path, tuple(array.shape), tuple(channel_of(labels) for labels in axes), is_parameter)
    for path, array, axes, is_parameter in zip(
      paths, arrays, leaf_axes, _parameters(variables), strict=True
    )
  )
  layers = tuple(
    _layer(index, step, channel_of, batch, leaves, leaf_axes) for index, step in enumerate(steps)
  )
  frozen = _frozen(classes, leaves, leaf_axes)
  groups = _groups(num_channels, layers, leaves)
  return ChannelGraph(num_channels, groups, layers, frozen, leaves, treedef)


def _check_inputs(paths: list[str], arrays: list[Any], x: Any) -> int:
  """Checks the arguments of `trace`; returns the batch size of x."""
  if not arrays:
    raise InputError("the variables hold no arrays: pass what the model's init returned")
  for path, array in zip(paths, arrays, strict=True):
    if not hasattr(array, "shape"):
      raise InputError(f"variable {path} is {array!r}, not an array")
    _check_finite(path, array)
  inputs = jax.tree.leaves(x)
  if not inputs or any(not np.shape(leaf) for leaf in inputs):
    raise InputError("x must be an array, or a tree of arrays, whose first axis is the batch")
  return np.shape(inputs[0])[0]


def check_finite(variables: Any) -> None:
  """Raises InputError, naming the first such leaf, where variables hold NaN or infinity."""
  for path, array in jax.tree.leaves_with_path(variables):
    _check_finite(jax.tree_util.keystr(path, simple=True, separator="/"), array)


def _check_finite(path: str, array: Any) -> None:
  if isinstance(array, (np.ndarray, jax.Array)) and jnp.issubdtype(array.dtype, jnp.inexact):
    bad = int((~jnp.isfinite(array)).sum())
    if bad:
      raise InputError(
        f"variable {path} holds {bad} values that are NaN or infinite: finite weights are needed"
      )


def _parameters(variables: Any) -> list[bool]:
  """Which leaves are parameters: Flax's "params" collection, or all where there is none."""
  if not (isinstance(variables, dict) and "params" in variables):
    return [True] * len(jax.tree.leaves(variables))
  return jax.tree.leaves(
    {name: jax.tree.map(lambda _, n=name: n == "params", tree) for name, tree in variables.items()}
  )


def _produced(step: Step) -> np.ndarray | None:
  out = step.contraction.out
  return None if out is None else step.outputs[0][out]


def _consumed(step: Step) -> np.ndarray | None:
  where = step.contraction
  return None if where.axis is None else step.inputs[where.operand][where.axis]


def _number_channels(
  classes: LabelClasses, steps: list[Step]
) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
  """Numbers the classes that are channels in the order in which layers produce them."""
  consumed: set[int] = set()
  for step in steps:
    if (labels := _consumed(step)) is not None and not step.contraction.depthwise:
      consumed.update(classes.find(labels).tolist())
  ids: dict[int, int] = {}
  for step in steps:
    if (labels := _produced(step)) is None:
      continue
    for root in classes.find(labels).tolist():
      if root in ids or classes.reason(root) is not None:
        continue
      if root in consumed:
        ids[root] = len(ids)
      else:
        classes.freeze(np.array([root]), "no layer reads it")
  id_of_root = np.full(len(classes), FROZEN)
  id_of_root[list(ids.keys())] = list(ids.values())
  return lambda labels: id_of_root[classes.find(labels)], len(ids)


def _layer(
  index: int,
  step: Step,
  channel_of: Callable,
  batch: int,
  leaves: tuple[Leaf, ...],
  leaf_axes: list[Axes],
) -> Layer:
  """Reads names, channels and costs off one convolution or dot product."""
  where, eqn = step.contraction, step.eqn
  out_shape = eqn.outvars[0].aval.shape
  kernel_shape = eqn.invars[where.kernel].aval.shape
  if eqn.primitive.name == "conv_general_dilated":
    kind = "depthwise" if where.depthwise else "conv"
    n_in, n_out = kernel_shape[eqn.params["dimension_numbers"].rhs_spec[1]], out_shape[where.out]
    total = math.prod(out_shape) * math.prod(kernel_shape) // n_out
  else:
    kind, contract = "dense", eqn.params["dimension_numbers"][0][where.kernel]
    n_in = kernel_shape[where.kernel_in] if where.kernel_in is not None else 1
    n_out = out_shape[where.out] if where.out is not None else 1
    total = math.prod(out_shape) * math.prod(kernel_shape[k] for k in contract)
  consumed, produced = _consumed(step), _produced(step)
  inputs = np.full(n_in, FROZEN) if consumed is None or where.depthwise else channel_of(consumed)
  outputs = np.full(n_out, FROZEN) if produced is None else channel_of(produced)
  kernel_axes = (None, None)
  if step.leaf is not None:  # the kernel may have been transposed on its way
    axes = [id(labels) for labels in leaf_axes[step.leaf]]
    kernel_axes = tuple(
      None if k is None else axes.index(id(step.inputs[where.kernel][k]))
      for k in (where.kernel_in, where.kernel_out)
    )
  return Layer(
    name=leaves[step.leaf].path if step.leaf is not None else f"{eqn.primitive.name}:{index}",
    kind=kind,
    inputs=inputs,
    outputs=outputs,
    macs_per_pair=total / (batch * len(inputs) * n_out),
    positions=math.prod(out_shape) // (batch * n_out),
    kernel=step.leaf,
    kernel_axes=kernel_axes,
  )


def _groups(
  num_channels: int, layers: tuple[Layer, ...], leaves: tuple[Leaf, ...]
) -> tuple[Group, ...]:
  """Collects the channels that live on the same axes, in network order."""
  lives_on: list[list[tuple[str, int]]] = [[] for _ in range(num_channels)]
  for leaf in leaves:
    for axis, ids in enumerate(leaf.axes):
      for channel in np.unique(ids[ids != FROZEN]).tolist():
        lives_on[channel].append((leaf.path, axis))
  by_members: dict[tuple, list[int]] = {}
  for channel, members in enumerate(lives_on):
    by_members.setdefault(tuple(members), []).append(channel)
  producer: dict[int, str] = {}
  for layer in layers:
    for channel in layer.outputs[layer.outputs != FROZEN].tolist():
      producer.setdefault(channel, layer.name)
  return tuple(
    Group(producer[channels[0]], np.array(channels), members)
    for members, channels in by_members.items()
  )


def _frozen(
  classes: LabelClasses, leaves: tuple[Leaf, ...], leaf_axes: list[Axes]
) -> dict[str, str]:
  """Says of every variable which of its axes are frozen and why; kernel windows left out."""
  frozen = {}
  for leaf, axes in zip(leaves, leaf_axes, strict=True):
    said = []
    for axis, (ids, labels) in enumerate(zip(leaf.axes, axes, strict=True)):
      stuck = labels[ids == FROZEN]
      reasons = {classes.reason(root) or "no layer produces it" for root in classes.find(stuck)}
      reasons -= {WINDOW}
      if len(labels) > 1 and reasons:
        said.append(f"axis {axis}: {'; '.join(sorted(reasons))}")
    if said:
      frozen[leaf.path] = ", ".join(said)
  return frozen
