"""Computes a network at fixed widths, smaller than the dense ones, under masks as arguments.

`masked` computes every channel of the dense network, because its mask is known only when the
compiled program runs. An envelope fixes how many channels of each kind are computed (see
`alignment.kinds_of`). Any mask that keeps at most so many is filled up with removed channels, whose
values are computed but multiplied by 0 before every layer that sums over channels. So one compiled
program serves all of these masks, and costs what the envelope's widths cost.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.alignment import kinds_of
from gatprune_jax.channels.compaction import dense_shapes
from gatprune_jax.channels.graph import ChannelGraph, check_mask_shape
from gatprune_jax.channels.interpreter import Convolution, Interpreter
from gatprune_jax.channels.tracing.relabelling import bind

_EXAMPLES = 4  # sets of channels of the envelope's widths that rules are tried on


@dataclasses.dataclass(frozen=True, eq=False)
class Envelope:
  """How many channels of each kind are computed.

  Attributes:
    graph: the network's channels.
    kind: the kind of each channel, int `[N]`.
    widths: number of channels of each kind that are computed, int `[kinds]`.
  """

  graph: ChannelGraph
  kind: np.ndarray
  widths: np.ndarray

  def holds(self, masks: np.ndarray) -> np.ndarray:
    """Returns which masks `[C, N]` keep at most as many channels of each kind, bool `[C]`."""
    return (self.counts(masks) <= self.widths).all(1)

  def counts(self, masks: np.ndarray) -> np.ndarray:
    """Returns how many channels of each kind the masks `[C, N]` keep, int `[C, kinds]`."""
    is_of_kind = self.kind[:, None] == np.arange(len(self.widths))[None]
    return np.asarray(masks, np.int64) @ is_of_kind

  def filled(self, mask: jax.Array) -> jax.Array:
    """Returns the channels that are computed under a mask `[N]`: its own and filler, bool `[N]`.

    The mask may be traced; it must be one that the envelope holds.
    """
    # Within each kind, channels that the mask keeps come first.
    order = jnp.lexsort((~jnp.asarray(mask, bool), self.kind))
    sizes = np.bincount(self.kind, minlength=len(self.widths))
    starts = np.cumsum(sizes) - sizes
    place = np.arange(len(self.kind)) - np.repeat(starts, sizes)  # of each entry of the order
    computed = place < np.repeat(self.widths, sizes)
    return jnp.zeros(len(self.kind), bool).at[order].set(computed)

  def cut(self, variables: Any, held: jax.Array) -> Any:
    """Returns the part of the dense variables that lies on the channels `held`, from `filled`."""
    held = jnp.append(held, True)  # channel id -1 (frozen) indexes this entry
    examples = np.append(self._examples()[0], True)

    def part(array, leaf):
      for axis, ids in enumerate(leaf.axes):
        if (count := int(examples[ids].sum())) < len(ids):
          array = jnp.take(array, jnp.flatnonzero(held[ids], size=count), axis=axis)
      return array

    leaves = map(part, jax.tree.leaves(variables), self.graph.leaves)
    return jax.tree.unflatten(self.graph.treedef, list(leaves))

  def masked(self, fn: Callable, conv: Convolution | None = None) -> Callable[..., Any]:
    """Returns fn at the envelope's widths: `small(variables, mask, held, *args)`.

    With `held = filled(mask)`, the result equals `masked(graph, fn)(dense, mask, *args)` up to
    rounding, where the variables are `cut(dense, held)`.

    Args:
      fn: one of the functions that the envelope was made for.
      conv: replaces `jax.lax.conv_general_dilated`, as in `masked`.
    """

    def small(variables: Any, mask: jax.Array, held: jax.Array, *args: Any) -> Any:
      check_mask_shape(mask, self.graph.num_channels)
      binding = bind(self.graph, fn, (dense_shapes(self.graph, variables), *args))
      binding.refuse_split_outputs()
      interpreter = Interpreter(
        binding.classes, binding.channel_of, self._examples(), jnp.asarray(mask, float), conv,
        held=held,
      )  # fmt: skip
      out = interpreter.run(binding.program, jax.tree.leaves((variables, *args)))
      return jax.tree.unflatten(binding.out_treedef, out)

    return small

  def _examples(self) -> np.ndarray:
    """Returns sets of channels with the envelope's widths, bool `[examples, N]`."""
    rng, rows = np.random.default_rng(0), np.zeros((_EXAMPLES, len(self.kind)), bool)
    for kind, width in enumerate(self.widths):
      members = np.flatnonzero(self.kind == kind)
      rows[0, members[:width]] = rows[1, members[len(members) - width :]] = True
      for row in rows[2:]:
        row[rng.permutation(members)[:width]] = True
    return rows


def make_envelope(
  graph: ChannelGraph, functions: Sequence[Callable], masks: np.ndarray, *args: Any,
  width: Callable[[int], int] = lambda widest: widest,
) -> Envelope:  # fmt: skip
  """Returns the smallest envelope that holds all of the given masks.

  Args:
    graph: the channels that `trace` returned.
    functions: the functions that are to be computed at the envelope's widths.
    masks: zeros and ones `[C, N]`, 1 = keep.
    *args: the arguments of the functions, as arrays or `jax.ShapeDtypeStruct`s, with the dense
      variables first.
    width: maps the largest number of channels of a kind that any mask keeps to the number that is
      computed; a result that is larger than the kind is reduced to its size.
  """
  found = kinds_of([bind(graph, fn, args) for fn in functions], graph.num_channels)
  _, kind = np.unique(found, return_inverse=True)
  num_kinds = int(kind.max()) + 1
  envelope = Envelope(graph, kind, np.zeros(num_kinds, np.int64))
  widest = envelope.counts(np.atleast_2d(masks)).max(0)
  sizes = np.bincount(kind, minlength=num_kinds)
  widths = np.minimum([width(int(num)) for num in widest], sizes)
  return dataclasses.replace(envelope, widths=widths)
