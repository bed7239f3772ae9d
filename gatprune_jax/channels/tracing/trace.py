"""Finds the channels of a network from its jaxpr alone: nothing is declared, no model is edited."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core as jex_core
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.graph import FROZEN, ChannelGraph, Leaf, leaf_paths
from gatprune_jax.channels.rules.axes import WINDOW, Axes, freeze_axes
from gatprune_jax.channels.rules.classes import LabelClasses
from gatprune_jax.channels.tracing.bypass import with_bypass
from gatprune_jax.channels.tracing.function import check_finite, trace_pure
from gatprune_jax.channels.tracing.grouping import group_channels
from gatprune_jax.channels.tracing.labelling import Source, Step, label
from gatprune_jax.channels.tracing.layers import consumed, produced, read_layers
from gatprune_jax.channels.tracing.parameters import parameter_flags
from gatprune_jax.channels.tracing.relabelling import relabel
from gatprune_jax.channels.tracing.selection import apply_selection
from gatprune_jax.errors import InputError

_OUTPUT = "output of the model"


def trace(
  apply_fn: Callable,
  variables: Any,
  x: Any,
  *,
  keep: str | Sequence[str] = (),
  freeze: str | Sequence[str] = (),
  only: str | Sequence[str] = (),
) -> ChannelGraph:
  """Finds the removable channels of `apply_fn(variables, x) -> outputs`.

  Every axis of every variable starts with one label per element. Walking the jaxpr, each
  operation merges the labels that must go together; a convolution or dot product merges its
  contracted axes and is recorded as a layer. What meets the model's input or output, or an
  operation without a rule, is frozen. A class of labels that is not frozen, is produced by a
  layer, read by a layer and on a variable is one channel: what lies on constants that apply_fn
  captured alone stays whole.

  `keep`, `freeze` and `only` are patterns, one or several, of variable paths: runs of whole
  components such as "stem" or "stage1_*/conv1/kernel", with `*`, `?` and `[]` as in a shell.

  Args:
    apply_fn: a pure function, in eval mode.
    variables: pytree of arrays, or of `jax.ShapeDtypeStruct`.
    x: example input, an array or pytree of arrays whose first axis is the batch.
    keep: never prune the channels that these layers produce. They may lose inputs.
    freeze: never cut these variables on any axis.
    only: prune exactly the channels that these layers produce, and no others.

  Returns:
    The graph. MACs are counted for one example of x.

  Raises:
    InputError: where the variables hold no arrays or values that are not finite, integers are
      used as weights, x has no batch axis or no example, apply_fn is not a pure function of
      (variables, x), a pattern matches nothing, or no channel can be removed.
  """
  arrays, treedef = jax.tree.flatten(variables)
  paths = leaf_paths(variables)
  batch = _check_inputs(paths, arrays, x)
  check_finite(variables)
  closed = trace_pure(apply_fn, variables, x)

  classes = LabelClasses()
  leaf_axes: list[Axes] = [tuple(classes.fresh(n) for n in leaf.shape) for leaf in arrays]
  x_axes = [(None,) * len(leaf.shape) for leaf in jax.tree.leaves(x)]
  sources = [Source(True, i) for i in range(len(arrays))] + [Source(False)] * len(x_axes)
  program = label(closed, classes, leaf_axes + x_axes, sources)
  for axes in program.outputs:
    freeze_axes(classes, axes, _OUTPUT)

  steps = program.contractions()
  _check_kernels(steps, paths, arrays)
  apply_selection(classes, steps, paths, leaf_axes, keep, freeze, only)
  channel_of, num_channels = _number_channels(closed, classes, steps, leaf_axes)
  leaves = tuple(
    Leaf(path, tuple(array.shape), tuple(channel_of(labels) for labels in axes), is_parameter)
    for path, array, axes, is_parameter in zip(
      paths, arrays, leaf_axes, parameter_flags(variables), strict=True
    )
  )
  layers = read_layers(program, channel_of, batch, leaves, leaf_axes)
  frozen = _frozen(classes, leaves, leaf_axes)
  from_input = [not source.is_weight for source in sources]
  groups = group_channels(num_channels, layers, leaves)
  groups = with_bypass(program, from_input, classes, channel_of, groups)
  return ChannelGraph(num_channels, groups, layers, frozen, leaves, treedef)


def _check_inputs(paths: list[str], arrays: list[Any], x: Any) -> int:
  """Checks the arguments of `trace`; returns the batch size of x."""
  if not arrays:
    raise InputError("the variables hold no arrays: pass what the model's init returned")
  for path, array in zip(paths, arrays, strict=True):
    if not hasattr(array, "shape"):
      raise InputError(f"variable {path} is {array!r}, not an array")
  inputs = jax.tree.leaves(x)
  if not inputs or any(not np.shape(leaf) for leaf in inputs):
    raise InputError("x must be an array, or a tree of arrays, whose first axis is the batch")
  batch = np.shape(inputs[0])[0]
  if batch == 0:
    raise InputError("x holds 0 examples: costs are counted for one, so pass at least one")
  return batch


def _check_kernels(steps: list[Step], paths: list[str], arrays: list[Any]) -> None:
  for step in steps:
    if step.leaf is not None and not jnp.issubdtype(arrays[step.leaf].dtype, jnp.inexact):
      raise InputError(
        f"variable {paths[step.leaf]} holds {arrays[step.leaf].dtype} values and is used as the "
        "weights of a layer: pruning needs floating-point weights, so dequantise them first"
      )


def _number_channels(
  closed: jex_core.ClosedJaxpr, classes: LabelClasses, steps: list[Step], leaf_axes: list[Axes]
) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
  """Numbers the classes that are channels in the order in which layers produce them.

  An operation that looks at labels that were tied only later sees others than when all elements of
  a channel have one label, as in `bind`. What cannot be removed then is frozen here too.
  """
  while True:
    ids = _channel_classes(classes, steps, leaf_axes)
    if not ids:
      raise InputError(
        f"no channel of this network can be removed: found {len(steps)} layers, every channel of "
        "which is tied to the model's input, its output or an operation without a rule, or named "
        "by keep or freeze"
      )
    id_of_root = np.full(len(classes), FROZEN)
    id_of_root[ids] = np.arange(len(ids))
    channel_of = lambda labels, id_of_root=id_of_root: id_of_root[classes.find(labels)]
    laid = relabel(closed, [tuple(map(channel_of, axes)) for axes in leaf_axes], len(ids))
    for channel, tied in laid.ties.items():
      classes.unify(np.array([ids[channel]]), np.array([ids[tied]]))
    for channel, why in laid.frozen.items():
      classes.freeze(np.array([ids[channel]]), why)
    if not laid.ties and not laid.frozen:
      return channel_of, len(ids)


def _channel_classes(classes: LabelClasses, steps: list[Step], leaf_axes: list[Axes]) -> list[int]:
  """The roots of the classes that are channels; the others are frozen, and the reason told."""
  on_variables = [classes.find(labels) for axes in leaf_axes for labels in axes]
  can_be_cut = set(np.concatenate([*on_variables, np.empty(0, np.int64)]).tolist())
  read: set[int] = set()
  for step in steps:
    if (labels := consumed(step)) is not None:
      read.update(classes.find(labels).tolist())
  ids: dict[int, None] = {}  # a set in order
  for step in steps:
    if (labels := produced(step)) is None:
      continue
    for root in classes.find(labels).tolist():
      if root in ids or classes.reason(root) is not None:
        continue
      if root not in can_be_cut:
        classes.freeze(np.array([root]), "it is on no variable, only on captured constants")
      elif root in read:
        ids[root] = None
      else:
        classes.freeze(np.array([root]), "no layer reads it")
  return list(ids)


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
