"""Gives the networks of several masks the same shapes, so that `vmap` can run them side by side.

Networks that are compacted to different masks have arrays of different shapes, which cannot be
stacked. An aligned network therefore also holds some of the channels that its mask removes, as
filler: their values are computed, but multiplied by 0 before every layer that sums over channels.
By default the filler is the least that gives all networks the same number of channels of each kind,
where a kind is a set of channels that can replace each other without changing any shape. The
docstring of `_kinds` shows an example.
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.compaction import (
  checked_mask,
  compact_variables,
  dense_shapes,
  kept_positions,
)
from gatprune_jax.channels.graph import FROZEN, ChannelGraph
from gatprune_jax.channels.interpreter import Convolution, Interpreter
from gatprune_jax.channels.tracing.grouping import Partition
from gatprune_jax.channels.tracing.labelling import Program
from gatprune_jax.channels.tracing.relabelling import Binding, bind


@dataclasses.dataclass(frozen=True)
class Aligned:
  """A network under C masks, with the same shapes for every mask.

  Attributes:
    graph: the dense network's channels.
    keep: bool `[C, N]`, the channels that each network holds: those of its mask, and filler.
    apply: `apply(index, variables, *args)` evaluates the function under `masks[index]`, on that
      network's own variables, which are one row of what `cut` returns. The index is an integer or
      a scalar array, and `vmap` over index and variables runs networks side by side. The result
      equals `masked(graph, fn)(dense variables, masks[index], *args)` up to rounding.
  """

  graph: ChannelGraph
  keep: np.ndarray
  apply: Callable[..., Any]

  def cut(self, variables: Any) -> Any:
    """Returns the part of the dense variables that each network holds, stacked `[C, ...]`."""
    return self.cut_each(variables for _ in self.keep)

  def cut_each(self, candidates: Iterable[Any]) -> Any:
    """Does what `cut` does, with dense variables of its own for each of the C networks."""
    own = [
      compact_variables(self.graph, variables, keep, allow_empty=True)
      for variables, keep in zip(candidates, self.keep, strict=True)
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *own)

  def uncut(self, stacked: Any, variables: Any) -> Any:
    """Returns dense variables for each network, stacked `[C, ...]`.

    Args:
      stacked: the variables of the aligned networks `[C, ...]`, as `cut` stacks them.
      variables: dense variables; they fill the elements that a network does not hold.
    """
    arrays = (map(np.asarray, jax.tree.leaves(tree)) for tree in (stacked, variables))
    whole = []
    for leaf, own, dense in zip(self.graph.leaves, *arrays, strict=True):
      out = np.repeat(dense[None], len(self.keep), axis=0)
      for index, keep in enumerate(self.keep):
        out[(index, *np.ix_(*kept_positions(leaf, keep)))] = own[index]
      whole.append(out)
    return jax.tree.unflatten(self.graph.treedef, whole)


def align(
  graph: ChannelGraph,
  fn: Callable,
  masks: np.ndarray,
  *args: Any,
  conv: Convolution | None = None,
  width: Callable[[int], int] = lambda widest: widest,
) -> Aligned:
  """Gives the networks of several masks the same shapes.

  Of every kind of channel, all networks hold the number that `width` returns, which by default is
  the largest number that any mask keeps.

  Args:
    graph: the channels that `trace` returned.
    fn: any traceable function whose first argument is the variables, in eval or train mode.
    masks: zeros and ones `[C, N]`, 1 = keep.
    *args: the arguments of fn, as arrays or `jax.ShapeDtypeStruct`s, with the dense variables
      first.
    conv: replaces `jax.lax.conv_general_dilated` in every convolution of fn, as in `masked`.
    width: maps the largest number of channels of a kind that any mask keeps to the number that all
      networks hold. The result must not be smaller than the argument; a result larger than the
      kind is reduced to the size of the kind.

  Raises:
    InputError: a mask has another shape or other values, or it removes all channels of a group
      that has no bypass.
  """
  masks = np.stack([checked_mask(graph, mask, allow_empty=True) for mask in masks])
  keep = _with_filler(masks, _kinds(bind(graph, fn, args), graph.num_channels), width)

  def apply(index: Any, variables: Any, *args: Any) -> Any:
    binding = bind(graph, fn, (dense_shapes(graph, variables), *args))
    binding.refuse_split_outputs()
    mask = jnp.asarray(masks, float)[index]
    interpreter = Interpreter(binding.classes, binding.channel_of, keep, mask, conv, index)
    out = interpreter.run(binding.program, jax.tree.leaves((variables, *args)))
    return jax.tree.unflatten(binding.out_treedef, out)

  return Aligned(graph, keep, apply)


def _with_filler(masks: np.ndarray, kinds: np.ndarray, width: Callable[[int], int]) -> np.ndarray:
  """Adds removed channels to each mask until all masks hold equally many channels of each kind.

  Args:
    masks: bool `[C, N]`.
    kinds: the kind of each channel, int64 `[N]`.
    width: maps the largest number of channels of a kind in any mask to the number in all masks.
  """
  keep = masks.copy()
  for kind in np.unique(kinds):
    members = np.flatnonzero(kinds == kind)
    num = width(int(masks[:, members].sum(1).max()))
    held = np.argsort(~masks[:, members], axis=1, kind="stable")[:, :num]
    np.put_along_axis(keep, members[held], True, axis=1)
  return keep


def _kinds(binding: Binding, num_channels: int) -> np.ndarray:
  """Returns the kind of each channel, int64 `[N]`; channels of one kind can replace each other.

  Channels of one kind occur equally often on every axis of every array. They also occur equally
  often in every run of elements that a pad adds to an axis or that a slice takes from an axis. So
  networks that hold equally many channels of every kind have the same shapes, and pad and slice
  at the same positions.

  Example: a dense layer `a`, of shape [3, 4], produces channels 0 to 3, and `b`, of shape [4, 1],
  reads them:

    h = x @ a
    h = h + pad(h[:, :2], 2 zeros on the right)
    y = relu(h) @ b

  All four channels lie on the same axes of `a` and `b` and form one group. The slice takes only
  channels 0 and 1, so the kinds are {0, 1} and {2, 3}. Two masks are aligned as follows:

    mask 0: 1 0 0 0    keeps 1 of {0, 1} and 0 of {2, 3}    holds 1 0 1 1
    mask 1: 0 1 1 1    keeps 1 of {0, 1} and 2 of {2, 3}    holds 0 1 1 1

  The widths are the larger numbers, 1 and 2. Both networks have 3 channels, `a` of shape [3, 3] and
  `b` of shape [3, 1], and both slice 1 channel and pad 2. Channels 2 and 3 are filler in network 0.
  Without kinds, network 0 might hold channels 0, 1 and 2, and its slice would have 2 channels
  where the slice of network 1 has 1.
  """
  kinds = Partition(np.zeros(num_channels, np.int64))
  for ids in _axes_and_runs(binding.program, binding.channel_of):
    kinds.split(ids[ids != FROZEN])
  return kinds.of


def _axes_and_runs(program: Program, channel_of: Callable) -> Iterator[np.ndarray]:
  """Yields the channel ids of every labelled axis, and of the runs of axes that change length.

  Where an operation changes the length of an axis, the longer of the two axes (before and after)
  is divided into runs of elements that are on both axes and runs that are on the longer one only.
  """
  ids_of = lambda axes: [channel_of(labels) for labels in axes if isinstance(labels, np.ndarray)]
  for axes in program.const_axes:
    yield from ids_of(axes)
  for step in program.steps:
    if step.body is not None:
      yield from _axes_and_runs(step.body, channel_of)
      continue
    for branch in step.branches:
      yield from _axes_and_runs(branch, channel_of)
    for axes in (*step.inputs, *step.outputs):
      yield from ids_of(axes)
    for before_and_after in zip(*step.inputs[:1], *step.outputs[:1], strict=False):
      ids = sorted(ids_of(before_and_after), key=len)
      if len(ids) == 2 and len(ids[0]) != len(ids[1]):
        is_in_both = np.isin(ids[1], ids[0])
        yield from np.split(ids[1], np.flatnonzero(np.diff(is_in_both)) + 1)
