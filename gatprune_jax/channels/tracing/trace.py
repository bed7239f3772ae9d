"""Finds the channels of a network from its jaxpr alone, without declarations or model edits."""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import jax
from jax.extend import core as jex_core
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.batch import Batch, check_examples, find_batch
from gatprune_jax.channels.graph import FROZEN, ChannelGraph, Group, Leaf, leaf_paths
from gatprune_jax.channels.rules.axes import WINDOW, Axes, freeze_axes
from gatprune_jax.channels.rules.classes import LabelClasses
from gatprune_jax.channels.tracing.bypass import with_bypass
from gatprune_jax.channels.tracing.function import check_finite, trace_pure
from gatprune_jax.channels.tracing.grouping import group_channels
from gatprune_jax.channels.tracing.labelling import Program, Source, Step, label
from gatprune_jax.channels.tracing.layers import consumed, produced, read_layers
from gatprune_jax.channels.tracing.liveness import has_dead_code
from gatprune_jax.channels.tracing.memory import read_memory
from gatprune_jax.channels.tracing.parameters import parameter_flags
from gatprune_jax.channels.tracing.relabelling import relabel
from gatprune_jax.channels.tracing.selection import apply_selection
from gatprune_jax.errors import InputError

_OUTPUT = "output of the model"
_SHOWN = 4  # names of layers that an error gives for one reason


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

  Every axis of every variable starts with one label per element. The jaxpr is then walked in
  execution order. Each operation merges the labels of elements that must be removed together. A
  convolution or dot product merges the labels of its contracted axes and is recorded as a layer.
  Labels that meet the model's input, the model's output or an operation without a rule are frozen,
  which means that their elements are never removed. A class of labels is one channel if it is not
  frozen, a layer produces it, a layer reads it, and it lies on a variable. A class that lies only
  on constants that apply_fn captured is never removed.

  `keep`, `freeze` and `only` each take one pattern or several patterns over variable paths. A
  pattern is a run of whole path components such as "stem" or "stage1_*/conv1/kernel", with `*`,
  `?` and `[]` as in a shell; see `matching`.

  Args:
    apply_fn: a pure function, in eval mode.
    variables: pytree of arrays, or of `jax.ShapeDtypeStruct`.
    x: example input, an array or pytree of arrays whose first axis is the batch. If their first
      axes differ, the batch is the one that the outputs have too; arrays without it are the same
      for all examples.
    keep: layers whose output channels are never pruned. These layers may still lose inputs. A
      variable that is not a layer's kernel is never cut on any axis.
    freeze: variables that are never cut on any axis.
    only: layers whose output channels may be pruned; no other channel is pruned. Empty: no limit.

  Returns:
    The graph. Its MACs are counted for one example of x.

  Raises:
    InputError: if the variables hold no arrays or hold values that are not finite, integers are
      used as weights, x has no batch axis or no example, apply_fn is not a pure function of
      (variables, x), a pattern matches nothing, or no channel can be removed.
  """
  arrays, treedef = jax.tree.flatten(variables)
  paths = leaf_paths(variables)
  _check_variables(paths, arrays)
  check_finite(variables)
  check_examples(x)
  closed = trace_pure(apply_fn, variables, x)
  batch = find_batch(x, closed.out_avals)

  sources = [Source(True, True, i) for i in range(len(arrays))]
  sources += [Source(False, not has_axis) for has_axis in batch.has_axis]

  def freeze_chosen(classes: LabelClasses, steps: list[Step], leaf_axes: list[Axes]) -> None:
    _check_kernels(steps, paths, arrays)
    apply_selection(classes, steps, paths, leaf_axes, keep, freeze, only)

  network = _label_network(closed, len(arrays), sources, freeze_chosen)
  classes, leaf_axes, program, channel_of, num_channels = network
  if not num_channels:
    raise InputError(f"no channel of this network can be removed: {_why_none(network, paths)}")
  leaves = tuple(
    Leaf(path, tuple(array.shape), tuple(map(channel_of, axes)), is_parameter, _itemsize(array))
    for path, array, axes, is_parameter in zip(
      paths, arrays, leaf_axes, parameter_flags(variables), strict=True
    )
  )
  larger = functools.partial(_with_one_more_example, apply_fn, variables, x, batch)
  layers = read_layers(program, channel_of, batch.size, larger, leaves, leaf_axes)
  frozen = _frozen(classes, leaves, leaf_axes)
  from_input = [not source.is_weight for source in sources]
  groups = group_channels(num_channels, layers, leaves)
  groups = with_bypass(program, from_input, classes, channel_of, groups)
  activations, moments = read_memory(program, len(arrays), channel_of, batch.size)
  divisors = _fixed_divisors(program, channel_of, groups)
  return ChannelGraph(
    num_channels, groups, layers, frozen, divisors, activations, moments, leaves, treedef
  )


class _Labelled(NamedTuple):
  """A network's program with its channels."""

  classes: LabelClasses
  leaf_axes: list[Axes]  # labels of every axis of every variable
  program: Program
  channel_of: Callable[[np.ndarray], np.ndarray]  # labels `[size]` -> channel ids `[size]`
  num_channels: int


def _label_network(
  closed: jex_core.ClosedJaxpr,
  num_leaves: int,
  sources: list[Source],
  freeze_chosen: Callable[[LabelClasses, list[Step], list[Axes]], None],
) -> _Labelled:
  """Labels a network and numbers its channels; dead code counts only where it costs no channel.

  Dead code may tie variables to the channels that they must lose with the others. For example, a
  head whose output only the train function returns can then be cut like any other layer. But dead
  code that would freeze channels or tie them together is ignored.

  Args:
    closed: the program, whose first inputs are the variables.
    num_leaves: number of variables.
    sources: for each input, where it comes from.
    freeze_chosen: freezes the classes that the caller keeps, given the classes, the layers and the
      labels of the variables.
  """

  def attempt(with_dead_code: bool) -> _Labelled:
    classes = LabelClasses()
    leaf_axes = [tuple(map(classes.fresh, value.shape)) for value in closed.in_avals[:num_leaves]]
    unlabelled = [(None,) * len(value.shape) for value in closed.in_avals[num_leaves:]]
    given = (classes, leaf_axes + unlabelled, sources)
    if with_dead_code:
      label(closed, *given, with_dead_code=True)
    program = label(closed, *given)
    for axes in program.outputs:
      freeze_axes(classes, axes, _OUTPUT)
    steps = program.contractions()
    freeze_chosen(classes, steps, leaf_axes)
    classes.settle()
    numbering = _number_channels(closed, classes, steps, leaf_axes)
    return _Labelled(classes, leaf_axes, program, *numbering)

  network = attempt(False)
  if has_dead_code(closed.jaxpr):
    with_dead = attempt(True)
    if with_dead.num_channels == network.num_channels:
      return with_dead
  return network


def _why_none(network: _Labelled, paths: list[str]) -> str:
  """Returns, for a network without channels, why the outputs of its layers cannot be removed."""
  layers_of: dict[str, dict[str, None]] = {}  # reason -> names of layers, an ordered set
  steps = network.program.contractions()
  for index, step in enumerate(steps):
    of_variable = "" if step.leaf is None else paths[step.leaf] or "the variable"
    name = of_variable or f"{step.eqn.primitive.name}:{index}"
    labels = np.concatenate([*produced(step), np.empty(0, np.int64)])
    for root in network.classes.find(labels).tolist():
      layers_of.setdefault(network.classes.reason(root) or "no layer reads it", {})[name] = None
  if any(step.eqn.primitive.name == "call_exported" for step in network.program.all_steps()):
    return (
      "it is a saved network that was loaded, whose layers cannot be seen: load it with "
      "trainable=True to see them"
    )
  if not layers_of:
    return f"it has {len(steps)} convolutions and dot products, and none with weights"
  said = []
  for reason, names in layers_of.items():
    shown = [*names][:_SHOWN]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    said.append(f"{', '.join(shown)}{more}: {reason}")
  return f"the outputs of every layer must stay ({'; '.join(said)})"


def _check_variables(paths: list[str], arrays: list[Any]) -> None:
  if not arrays:
    raise InputError("the variables hold no arrays: pass what the model's init returned")
  for path, array in zip(paths, arrays, strict=True):
    if not hasattr(array, "shape"):
      raise InputError(f"variable {path} is {array!r}, not an array")


def _itemsize(array: Any) -> int:
  """Returns the bytes of one element in the dtype in which JAX holds an array."""
  return jax.dtypes.canonicalize_dtype(array.dtype, allow_extended_dtype=True).itemsize


def _with_one_more_example(
  apply_fn: Callable, variables: Any, x: Any, batch: Batch
) -> jex_core.Jaxpr | None:
  """Returns the program for one example more; None if apply_fn takes no other batch size."""
  larger = batch.resized(x, batch.size + 1)
  try:
    return jax.make_jaxpr(lambda *args: apply_fn(*args))(variables, larger).jaxpr
  except Exception:  # a user's function may raise anything for a batch that it does not expect
    return None


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

  A class is a channel if it is not frozen, a layer produces it, a layer reads it, and it lies on a
  variable. Labels of all other classes get the channel id FROZEN, which is -1.

  Example: `relu(relu(x @ stem) @ mid) @ head` with the variables head [2, 1], mid [3, 2] and
  stem [1, 3] has these labels, in the order of `jax.tree.leaves`, which sorts by name:

      variable   labels of axis 0 (inputs)   labels of axis 1 (outputs)
      head       0 1                         2
      mid        3 4 5                       6 7
      stem       8                           9 10 11

  The walk over the jaxpr has merged them into the classes {0, 6}, {1, 7}, {3, 9}, {4, 10} and
  {5, 11}. It has frozen {2}, which is the model's output, and {8}, which is contracted with the
  unlabelled input x. The stem runs first and produces labels 9, 10 and 11, so the classes
  {3, 9}, {4, 10} and {5, 11} become channels 0, 1 and 2. Then mid produces labels 6 and 7, so
  {0, 6} and {1, 7} become channels 3 and 4, although they hold the lowest labels. The head
  produces only the frozen label 2. For the labels 0 to 11, `channel_of` returns
  [3, 4, -1, 0, 1, 2, 3, 4, -1, 0, 1, 2], and the number of channels is 5.

  One numbering is not always enough, because some rules compare labels and not classes. In the
  walk over the jaxpr, two labels of one class are different numbers, and two labels that a later
  operation ties are still in different classes. `bind` later labels the same program with one
  label for each channel, so such a rule can then decide differently. Each round therefore walks
  the program in the same way (`relabel`), ties and freezes what that walk ties and freezes, and
  numbers the remaining channels again.

  Example: with the variables gain [2, 1], head [2, 1], mid [4, 2] and stem [1, 4], let

      h = x @ stem                                          # labels 13 14 15 16
      y = (h.reshape(-1, 2, 2) * gain).reshape(-1, 4)
      out = relu((h + jnp.roll(h, 2, axis=1) + y) @ mid) @ head

  In the walk over the jaxpr the reshape gives the elements four different labels, and the product
  ties {13, 14} and {15, 16} to the two rows of gain. The sum ties 13 to 15 and 14 to 16. The first
  round numbers all of these labels channel 0 and the outputs of mid channels 1 and 2. In its
  `relabel`, the four elements have one label, so the reshape puts labels on its last axis only.
  The product then combines an unlabelled axis with gain's rows, which freezes channel 0. The
  second round numbers the outputs of mid channels 0 and 1, finds nothing new and returns.

  Args:
    closed: the program.
    classes: the label classes after the walk; more of them are tied and frozen here.
    steps: the layers of the program, in execution order.
    leaf_axes: the labels of every axis of every variable.

  Returns:
    A function from labels `[size]` to channel ids `[size]`, and the number of channels.
  """
  while True:
    ids = _channel_classes(classes, steps, leaf_axes)
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
  """Returns the roots of the classes that are channels, in the order in which layers produce them.

  A class that a layer produces and that is not a channel is frozen, with the reason.
  """
  on_variables = [classes.find(labels) for axes in leaf_axes for labels in axes]
  can_be_cut = set(np.concatenate([*on_variables, np.empty(0, np.int64)]).tolist())
  read: set[int] = set()
  for step in steps:
    for labels in consumed(step):
      read.update(classes.find(labels).tolist())
  ids: dict[int, None] = {}  # used as an ordered set
  for step in steps:
    labels = np.concatenate([*produced(step), np.empty(0, np.int64)])
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


def _fixed_divisors(
  program: Program, channel_of: Callable[[np.ndarray], np.ndarray], groups: tuple[Group, ...]
) -> dict[str, tuple[float, ...]]:
  """Returns the constants that divide sums over the channels of a group, but are no counts."""
  found: dict[str, dict[float, None]] = {}  # the inner dicts are ordered sets
  for step in program.all_steps():
    if step.quotient is None or step.quotient.number is None:
      continue
    ids = np.concatenate([channel_of(labels) for labels in step.quotient.total.labels])
    for group in groups:
      if np.isin(group.channels, ids).any():
        found.setdefault(group.name, {})[step.quotient.number] = None
  return {name: tuple(numbers) for name, numbers in found.items()}


def _frozen(
  classes: LabelClasses, leaves: tuple[Leaf, ...], leaf_axes: list[Axes]
) -> dict[str, str]:
  """Returns, for each variable path, which axes hold frozen elements and why.

  Axes of size 1, and axes that are frozen only as the window of a kernel, are left out.
  """
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
