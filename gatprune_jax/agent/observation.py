"""The observation: the channel graph with node and edge features.

A static part does not change during a search; a dynamic part changes with the agent's actions.
Nodes are the N channels followed by the L layers. Each layer of n_in inputs and n_out outputs adds
a complete bipartite block of edges between its channels, once in each direction, and a star of
edges between the layer's node and its channels. Every node also has an edge to itself.
"""

from collections.abc import Mapping
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from gatprune_jax.channels import (
  FROZEN,
  Budgets,
  ChannelGraph,
  group_starts,
  rank_in_group,
  ranks,
)
from gatprune_jax.channels import Layer as ChannelLayer
from gatprune_jax.criteria import mean_by_channel, vector_statistics
from gatprune_jax.kernels.attention import Bipartite, flags

_KINDS = ("conv", "depthwise", "dense")
_VECTORS = ("scale", "bias", "mean", "var")


class Observation(NamedTuple):
  """Static part of the state, which no action changes."""

  channels: np.ndarray  # [N, F] float32, standardised
  layers: np.ndarray  # [L, G] float32
  # `observe` returns complete bipartite sets. The policy's encoder reads these sets in the form
  # that its `lay_out` gives them.
  edges: tuple[Bipartite, ...] | Any
  group_of: np.ndarray  # [N] int32


def observe(
  graph: ChannelGraph,
  variables: Any,
  saliency: Mapping[str, np.ndarray],
  budgets: Budgets,
  edge_norms: bool,
) -> Observation:
  """Computes the observation from the graph and the weights.

  The features of a channel are, for each saliency score, its rank within its group and among all
  channels, both in [-1, 1]; the means of batch-norm scale, bias, mean and variance; the log of the
  mean norm of the kernels that write the channel, and of those that read it; the log width of its
  group; its position in depth; the log number of output positions; and its marginal share of each
  constrained resource. All features are standardised over the channels.

  Args:
    graph: the network's channels.
    variables: the network's weights.
    saliency: {criterion: scores `[N]`}.
    budgets: the constraints.
    edge_norms: whether each edge has the norm of the kernel between its two channels as a feature,
      or only the features that it shares with all edges of its layer.
  """
  arrays = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(variables)]
  num = graph.num_channels
  widths = np.array([len(group.channels) for group in graph.groups])
  columns = []
  for scores in saliency.values():
    columns += [_rank_in_own_group(graph, scores, widths), rank_among_all(scores)]
  for name in _VECTORS:
    values = vector_statistics(graph, variables, name, lambda a: a)
    columns.append(np.zeros(num) if values is None else values)
  norms = [_kernel_norms(graph, layer, arrays) for layer in graph.layers]
  written = [(n.outputs, np.linalg.norm(n.values, axis=0)) for found in norms for n in found]
  read = [(n.inputs, np.linalg.norm(n.values, axis=1)) for found in norms for n in found]
  for pieces in (written, read):
    columns.append(np.log(mean_by_channel(num, pieces) + 1e-6))
  columns.append(np.log(widths)[graph.group_of])
  depth = [
    (ids, np.full(len(ids), index / len(graph.layers)))
    for index, layer in enumerate(graph.layers)
    for ids in _outputs(graph, layer)
  ]
  positions = [
    (ids, np.full(len(ids), np.log(layer.positions)))
    for layer in graph.layers
    for ids in _outputs(graph, layer)
  ]
  columns += [mean_by_channel(num, depth), mean_by_channel(num, positions)]
  for resource, dense in zip(budgets.resources, budgets.dense, strict=True):
    columns.append(np.asarray(resource.gradient(np.ones(num))) / dense * num)

  return Observation(
    channels=_standardised(np.stack(columns, axis=1)),
    layers=_layer_features(graph),
    edges=_edges(graph, norms, edge_norms),
    group_of=graph.group_of.astype(np.int32),
  )


def dynamic_features(mask: jax.Array, decided: jax.Array, slack: jax.Array) -> jax.Array:
  """Returns the features of each channel that actions change, `[N, 2 + K]` float32.

  Args:
    mask: bool `[N]`, the mask after the steps so far.
    decided: bool `[N]`, True for the channels that earlier steps have decided.
    slack: (c_k(mask)/c_k(dense) - d_k) / d_k of this mask, `[K]`, positive where over budget.
  """
  num = mask.shape[0]
  flags = jax.numpy.stack([mask, decided], axis=1).astype(jax.numpy.float32)
  shared = jax.numpy.broadcast_to(slack.astype(jax.numpy.float32), (num, slack.shape[0]))
  return jax.numpy.concatenate([flags, shared], axis=1)


class _Norms(NamedTuple):
  inputs: np.ndarray  # [n_in] distinct channel ids
  outputs: np.ndarray  # [n_out] distinct channel ids
  values: np.ndarray  # [n_in, n_out] L2 norm of the kernel elements between two channels


def _outputs(graph: ChannelGraph, layer: ChannelLayer) -> list[np.ndarray]:
  """Returns the channel ids of each axis of a layer's output channels, such as that of heads."""
  return [layer.outputs, *(graph.leaves[layer.kernel].axes[k] for k in layer.further_outputs)]


def _kernel_norms(
  graph: ChannelGraph, layer: ChannelLayer, arrays: list[np.ndarray]
) -> list[_Norms]:
  """Returns the kernel norms between a layer's inputs and each axis of its output channels.

  A layer without a kernel among the variables that has both axes has none.
  """
  if layer.kernel is None or None in layer.kernel_axes:
    return []
  found, (in_axis, out_axis) = [], layer.kernel_axes
  in_ids, in_index = np.unique(layer.inputs, return_inverse=True)
  live_in = in_ids != FROZEN
  out_axes = (out_axis, *layer.further_outputs)
  for axis, outputs in zip(out_axes, _outputs(graph, layer), strict=True):
    kernel = np.moveaxis(arrays[layer.kernel], (in_axis, axis), (0, 1))
    squared = (kernel**2).sum(tuple(range(2, kernel.ndim)))
    out_ids, out_index = np.unique(outputs, return_inverse=True)
    summed = np.zeros((len(in_ids), len(out_ids)))
    np.add.at(summed, (in_index[:, None], out_index[None]), squared)
    live_out = out_ids != FROZEN
    values = np.sqrt(summed[np.ix_(live_in, live_out)])
    found.append(_Norms(in_ids[live_in], out_ids[live_out], values))
  return found


def _edges(
  graph: ChannelGraph, norms: list[list[_Norms]], edge_norms: bool
) -> tuple[Bipartite, ...]:
  logs = [np.log(n.values + 1e-6).ravel() for found in norms for n in found]
  everything = np.concatenate([*logs, np.zeros(1)])
  mean, std = everything.mean(), everything.std() + 1e-6
  sets = []
  for index, (layer, found) in enumerate(zip(graph.layers, norms, strict=True)):
    for norm in found:
      if not norm.values.size:
        continue
      strength = (np.log(norm.values + 1e-6) - mean) / std if edge_norms else None
      reverse = None if strength is None else strength.T
      dense = layer.kind == "dense"
      forward, backward = flags(forward=True, dense=dense), flags(backward=True, dense=dense)
      sets.append(Bipartite(norm.inputs, norm.outputs, forward, strength))
      sets.append(Bipartite(norm.outputs, norm.inputs, backward, reverse))
    members = np.unique(np.concatenate(layer.axes))
    members = members[members != FROZEN]
    if len(members):
      node = np.array([graph.num_channels + index])
      sets.append(Bipartite(node, members, flags(layer=True), None))
      sets.append(Bipartite(members, node, flags(layer=True), None))
  return tuple(sets)


def _layer_features(graph: ChannelGraph) -> np.ndarray:
  sizes = [math.prod(ids.size for ids in layer.axes) for layer in graph.layers]
  macs = sizes * np.array([layer.macs_per_pair for layer in graph.layers])
  columns = [
    np.arange(len(graph.layers)),
    np.log([layer.inputs.size for layer in graph.layers]),
    np.log([layer.outputs.size for layer in graph.layers]),
    np.log([layer.positions for layer in graph.layers]),
    macs / macs.sum(),
    *([layer.kind == kind for layer in graph.layers] for kind in _KINDS),
  ]
  return _standardised(np.stack([np.asarray(c, np.float64) for c in columns], axis=1))


def rank_among_all(scores: np.ndarray) -> np.ndarray:
  """Maps scores `[n]` to ranks evenly spaced between -1 and 1, the highest score nearest to 1.

  Of equal scores, the one with the lower index gets the higher rank.
  """
  return 1 - 2 * (ranks(scores) + 0.5) / len(scores)


def _rank_in_own_group(graph: ChannelGraph, scores: np.ndarray, widths: np.ndarray) -> np.ndarray:
  ranked = rank_in_group(
    rank_among_all(scores).astype(np.float32), graph.group_of, group_starts(graph)
  )
  return 1 - 2 * (np.asarray(ranked) + 0.5) / widths[graph.group_of]


def _standardised(columns: np.ndarray) -> np.ndarray:
  """Scales each column to zero mean and unit variance; a constant column becomes zero."""
  centred = columns - columns.mean(0)
  std = centred.std(0)
  return np.where(std > 1e-6, centred / np.maximum(std, 1e-6), 0.0).astype(np.float32)
