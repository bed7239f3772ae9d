"""Several masks on one function at one shape, so that their networks can run side by side.

Compacted to different masks, a network has different shapes, and nothing can be stacked. Aligned,
every network also holds some of the channels that its mask removes, as filler that no layer sees:
just enough that all of them have the same widths.
"""

from collections.abc import Callable, Iterator
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
  """A network under C masks, at one shape.

  Attributes:
    graph: the dense network's channels.
    keep: bool `[C, N]`, the channels that each network holds: its mask's, and filler.
    apply: `apply(index, variables, *args)`, the function under the mask of that index (an integer
      or a scalar array: `vmap` over it runs networks side by side), on variables that `cut` made.
      Up to rounding, `masked(graph, fn)(dense variables, masks[index], *args)`.
  """

  graph: ChannelGraph
  keep: np.ndarray
  apply: Callable[..., Any]

  def cut(self, variables: Any) -> Any:
    """What each network holds of the same dense variables, stacked `[C, ...]`."""
    own = [compact_variables(self.graph, variables, keep, allow_empty=True) for keep in self.keep]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *own)

  def uncut(self, stacked: Any, variables: Any) -> Any:
    """Dense variables `[C, ...]`: each network's own, and where it has none those given."""
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
  """Gives the networks of several masks one shape: of every kind of channel the largest width.

  Args:
    graph: from `trace`.
    fn: any traceable function whose first argument is the variables, in eval or train mode.
    masks: zeros and ones `[C, N]`, 1 = keep.
    *args: of fn, arrays or `jax.ShapeDtypeStruct`s; the dense variables first.
    conv: as in `masked`.
    width: from how many channels of a kind the widest network keeps to how many all networks hold,
      at least as many; never more than there are.

  Raises:
    InputError: where a mask has another shape or other values.
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
  """Each mask with as many channels of each kind `[N]`: the width for the mask that keeps most."""
  keep = masks.copy()
  for kind in np.unique(kinds):
    members = np.flatnonzero(kinds == kind)
    num = width(int(masks[:, members].sum(1).max()))
    held = np.argsort(~masks[:, members], axis=1, kind="stable")[:, :num]
    np.put_along_axis(keep, members[held], True, axis=1)
  return keep


def _kinds(binding: Binding, num_channels: int) -> np.ndarray:
  """Which channels can stand for each other, as numbers `[N]` of their kinds.

  They occur equally often on every axis of every array, and in every run that a pad adds to an axis
  or a slice takes from it. So networks that hold as many channels of every kind have the same
  shapes, and pad and slice at the same places.
  """
  kinds = Partition(np.zeros(num_channels, np.int64))
  for ids in _axes_and_runs(binding.program, binding.channel_of):
    kinds.split(ids[ids != FROZEN])
  return kinds.of


def _axes_and_runs(program: Program, channel_of: Callable) -> Iterator[np.ndarray]:
  """Channel ids of every labelled axis, and of the runs by which an operation changes one."""
  ids_of = lambda axes: [channel_of(labels) for labels in axes if isinstance(labels, np.ndarray)]
  for axes in program.const_axes:
    yield from ids_of(axes)
  for step in program.steps:
    if step.body is not None:
      yield from _axes_and_runs(step.body, channel_of)
      continue
    for axes in (*step.inputs, *step.outputs):
      yield from ids_of(axes)
    for before_and_after in zip(*step.inputs[:1], *step.outputs[:1], strict=False):
      ids = sorted(ids_of(before_and_after), key=len)
      if len(ids) == 2 and len(ids[0]) != len(ids[1]):
        is_in_both = np.isin(ids[1], ids[0])
        yield from np.split(ids[1], np.flatnonzero(np.diff(is_in_both)) + 1)
