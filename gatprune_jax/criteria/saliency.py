"""Saliency criteria, which score channels: a higher score means that a channel is worth more.

Where several layers produce a channel (as in a residual stream), the score of the channel is the
mean of the layers' scores. To add a criterion, write one function and add one entry to `CRITERIA`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels import FROZEN, ChannelGraph, masked
from gatprune_jax.errors import InputError
from gatprune_jax.kernels.convolution import network_convolution
from gatprune_jax.networks import Network, Task
from gatprune_jax.runtime import compilation

_TAYLOR_BATCH = 32  # images in a batch of `taylor`; bounds memory


class Evidence(NamedTuple):
  """The inputs of a criterion."""

  graph: ChannelGraph
  network: Network
  task: Task
  x: jax.Array  # training examples [n, ...]
  y: Any  # targets of the examples, tree of [n, ...]
  key: jax.Array  # PRNG key


def random_scores(evidence: Evidence) -> np.ndarray:
  """Returns independent uniform scores, as a control for the other criteria."""
  return np.asarray(jax.random.uniform(evidence.key, (evidence.graph.num_channels,)))


def l1_norm(evidence: Evidence) -> np.ndarray:
  """sum |W| of each filter, over the layer's mean (Li et al. 2017, arXiv 1608.08710)."""
  return _filter_scores(evidence, lambda filters: np.abs(filters).sum(-1))


def l2_norm(evidence: Evidence) -> np.ndarray:
  """sqrt(sum W^2) of each filter, over the layer's mean (He et al. 2018, arXiv 1808.06866)."""
  return _filter_scores(evidence, lambda filters: np.linalg.norm(filters, axis=-1))


def geometric_median(evidence: Evidence) -> np.ndarray:
  """Computes FPGM scores of filters (He et al. 2019, arXiv 1811.00250).

  The score of filter i is sum_j ||W_i - W_j|| over all filters j of the layer, divided by the mean
  of the layer's scores. A filter near the layer's geometric median has a low score, because the
  layer's other filters can replace it best.
  """

  def distances(filters: np.ndarray) -> np.ndarray:
    squared = (filters**2).sum(-1)
    gram = squared[:, None] + squared[None] - 2 * filters @ filters.T
    return np.sqrt(np.maximum(gram, 0)).sum(-1)

  return _filter_scores(evidence, distances)


def bn_scale(evidence: Evidence) -> np.ndarray:
  """Computes |gamma| of the channel's normalisation layers (Liu et al. 2017, arXiv 1708.06519).

  Gammas are the one-axis parameters named "scale". A channel without a gamma gets the mean score of
  all channels with a gamma.

  Raises:
    InputError: no channel that can be removed has a gamma.
  """
  pieces = _vectors(evidence.graph, evidence.network.variables, "scale", np.abs)
  if not pieces:
    raise InputError(
      "criterion bn_scale needs normalisation layers with a parameter named 'scale', and no "
      "channel that can be removed has one: choose another criterion"
    )
  return _scores_by_channel(evidence.graph.num_channels, pieces)


def taylor(evidence: Evidence) -> np.ndarray:
  """mean over examples of (dL/dm_i)^2 at the dense mask (Molchanov et al. 2019, arXiv 1906.10771).

  L is the task's loss of an example, and m_i multiplies channel i wherever a layer reads the
  channel, so that dL/dm_i = sum activation * dL/d activation. The loop over batches is in Python,
  because on CPU the gradient of a convolution is much slower inside a compiled loop.
  """
  masked_fn = masked(evidence.graph, evidence.network.eval_fn, network_convolution())

  def loss(mask, variables, x, y):
    outputs = masked_fn(variables, mask, x[None])
    return evidence.task.loss(outputs, jax.tree.map(lambda leaf: leaf[None], y))[0]

  ones, variables = jnp.ones(evidence.graph.num_channels), evidence.network.variables
  gradients = compilation.jit(jax.vmap(jax.grad(loss), (None, None, 0, 0)))
  examples = (evidence.x, evidence.y)
  batches = (
    jax.tree.map(lambda rows, i=start: rows[i : i + _TAYLOR_BATCH], examples)
    for start in range(0, len(evidence.x), _TAYLOR_BATCH)
  )
  squared = sum((gradients(ones, variables, *batch) ** 2).sum(0) for batch in batches)
  return np.asarray(squared) / len(evidence.x)


CRITERIA: dict[str, Callable[[Evidence], np.ndarray]] = {
  "random": random_scores,
  "l1": l1_norm,
  "l2": l2_norm,
  "bn_scale": bn_scale,
  "fpgm": geometric_median,
  "taylor": taylor,
}


def score_channels(name: str, evidence: Evidence) -> np.ndarray:
  """Computes the named criterion's score of every channel, float `[N]`.

  Raises:
    InputError: the name is unknown, or the criterion does not apply to this network.
  """
  check_criteria([name])
  return CRITERIA[name](evidence)


def check_criteria(names: Sequence[str]) -> None:
  """Raises InputError if a name is not a key of `CRITERIA`."""
  for name in names:
    if name not in CRITERIA:
      raise InputError(f"criterion {name!r} is unknown: choose from {', '.join(CRITERIA)}")


def check_saliency(names: Sequence[str]) -> None:
  """Raises InputError if a name is unknown, or if there is no name besides "random".

  The scores of the named criteria are also features of the agent, and random scores are not used as
  a feature.
  """
  check_criteria(names)
  if set(names) <= {"random"}:
    raise InputError("criteria names no saliency score besides random: add at least one")


def vector_statistics(
  graph: ChannelGraph, variables: Any, name: str, transform: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray | None:
  """Computes the mean over a channel's one-axis leaves of a given name, float64 `[N]`.

  The name of a leaf is the last key of its path, without the key "value" with which NNX ends every
  path.

  Args:
    graph: the network's channels.
    variables: the network's variables, a tree.
    name: the name of the leaves.
    transform: applied to the values `[n]` of a leaf before averaging, elementwise.

  Returns:
    The means, 0 for a channel without such a leaf; None if no such leaf belongs to a channel.
  """
  pieces = _vectors(graph, variables, name, transform)
  return mean_by_channel(graph.num_channels, pieces) if pieces else None


def _vectors(
  graph: ChannelGraph, variables: Any, name: str, transform: Callable[[np.ndarray], np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Returns channel ids `[n]` and values `[n]` of each leaf that `vector_statistics` uses."""
  return [
    (leaf.axes[0], transform(np.asarray(array, np.float64)))
    for leaf, array in zip(graph.leaves, jax.tree.leaves(variables), strict=True)
    if leaf.path.removesuffix("/value").split("/")[-1] == name
    and len(leaf.shape) == 1
    and (leaf.axes[0] != FROZEN).any()
  ]


def mean_by_channel(num_channels: int, pieces: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
  """Returns the mean of all values of each channel, float64 `[N]`; 0 for a channel without values.

  Args:
    num_channels: N.
    pieces: pairs of channel ids `[n]` and values `[n]`; values with the id FROZEN are ignored.
  """
  total, count = np.zeros(num_channels), np.zeros(num_channels)
  for ids, values in pieces:
    live = ids != FROZEN
    np.add.at(total, ids[live], values[live])
    np.add.at(count, ids[live], 1)
  return total / np.maximum(count, 1)


def _scores_by_channel(
  num_channels: int, pieces: list[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
  """Returns `mean_by_channel`, with the mean of all scored channels for channels without values.

  With the mean, an unscored channel is neither the first nor the last to be removed.
  """
  values = mean_by_channel(num_channels, pieces)
  is_scored = mean_by_channel(num_channels, [(ids, np.ones(len(ids))) for ids, _ in pieces]) > 0
  return np.where(is_scored, values, values.sum() / max(is_scored.sum(), 1))


def _filter_scores(evidence: Evidence, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
  """Scores each layer's filters `[n_out, fan_in]`, divides by the layer's mean, and averages.

  A channel that several layers produce gets the average of its scores in the layers.
  """
  arrays = jax.tree.leaves(evidence.network.variables)
  pieces = []
  for layer in evidence.graph.layers:
    if layer.kernel is None or layer.kernel_axes[1] is None:
      continue
    for axis in (layer.kernel_axes[1], *layer.further_outputs):
      kernel = np.moveaxis(np.asarray(arrays[layer.kernel], np.float64), axis, 0)
      values = score(kernel.reshape(len(kernel), -1))
      ids = evidence.graph.leaves[layer.kernel].axes[axis]
      pieces.append((ids, values / max(values.mean(), np.finfo(np.float64).tiny)))
  return _scores_by_channel(evidence.graph.num_channels, pieces)
