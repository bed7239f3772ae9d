"""Whole networks as programs that are timed in turn."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from gatprune_jax.channels.batch import check_examples, find_batch
from gatprune_jax.channels.compaction import compact
from gatprune_jax.channels.graph import ChannelGraph
from gatprune_jax.runtime.timing import Program, as_program, time_in_turn


class Timing(NamedTuple):
  """How long a forward pass takes, over rounds in which all networks are timed in turn.

  A spread is half the distance between the quartiles of the rounds.
  """

  seconds: float  # the median
  spread: float
  ratio: float  # median of the ratios to the first network in the same round
  ratio_spread: float


def time_masks(
  graph: ChannelGraph,
  fn: Callable,
  variables: Any,
  masks: Mapping[Any, np.ndarray],
  x: Any,
  batch: int,
) -> dict[Any, Timing]:
  """Times the compact networks of masks in turn; see `time_in_turn` for what counts.

  Args:
    graph: the network's channels.
    fn: the network in eval mode.
    variables: the dense variables, or their shapes; see `network_program`.
    masks: {name: bool `[num_channels]`}; ratios are those to the first one.
    x: one example `[1, ...]` or more, whose values are repeated.
    batch: number of examples in a forward pass.

  Returns:
    {name: how long the forward pass of its network takes}.
  """
  programs = [network_program(graph, fn, variables, mask, x, batch) for mask in masks.values()]
  seconds = time_in_turn(programs)
  found = {}
  for name, of_one in zip(masks, seconds.T, strict=True):
    values = (of_one, of_one / seconds[:, 0])
    quartiles = np.quantile(values, [0.25, 0.5, 0.75], axis=1)  # [3, 2]
    spread = (quartiles[2] - quartiles[0]) / 2
    found[name] = Timing(*map(float, (quartiles[1][0], spread[0], quartiles[1][1], spread[1])))
  return found


def network_program(
  graph: ChannelGraph, fn: Callable, variables: Any, mask: np.ndarray, x: Any, batch: int
) -> Program:
  """Returns the forward pass of a compact network on a batch.

  Args:
    graph: the network's channels.
    fn: the network in eval mode.
    variables: the dense variables; for `jax.ShapeDtypeStruct`s, which a network has before it is
      trained, random numbers take their place.
    mask: `[num_channels]`, 1 = keep; a group that has a bypass may be empty.
    x: one example `[1, ...]` or more, whose values are repeated.
    batch: number of examples.
  """
  variables = with_values(variables)
  small = compact(graph, fn, variables, mask, allow_empty=True)
  return as_program(small.apply, small.variables, examples(fn, variables, x, batch))


def examples(fn: Callable, variables: Any, x: Any, batch: int) -> Any:
  """Returns an input of a given number of examples, which repeats those of x.

  Args:
    fn: the network.
    variables: its variables.
    x: an example or more, a tree of arrays.
    batch: number of examples.
  """
  check_examples(x)
  found = find_batch(x, jax.eval_shape(fn, variables, x))
  leaves, treedef = jax.tree.flatten(x)
  repeated = [
    np.resize(np.asarray(leaf), (batch, *np.shape(leaf)[1:])) if has_axis else leaf
    for leaf, has_axis in zip(leaves, found.has_axis, strict=True)
  ]
  return jax.tree.unflatten(treedef, repeated)


def with_values(variables: Any) -> Any:
  """Replaces `jax.ShapeDtypeStruct`s by random kernels, and by ones for arrays of one axis."""
  rng = np.random.default_rng(0)

  def filled(leaf: Any) -> Any:
    if not isinstance(leaf, jax.ShapeDtypeStruct):
      return leaf
    if len(leaf.shape) < 2:
      return np.ones(leaf.shape, leaf.dtype)
    scale = np.prod(leaf.shape[:-1]) ** -0.5
    return (scale * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

  return jax.tree.map(filled, variables)
