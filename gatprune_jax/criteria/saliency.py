"""Saliency of channels: higher means more worth keeping.

Where a channel is produced by several layers (the residual stream), its score is the mean of the
layers' scores. A new criterion is one function and one entry of `CRITERIA`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels import FROZEN, ChannelGraph, masked
from gatprune_jax.errors import InputError
from gatprune_jax.networks import Network, Task
from gatprune_jax.runtime import compilation

_TAYLOR_BATCH = 32  # images at once; bounds memory


class Evidence(NamedTuple):
  """What criteria may look at."""

  graph: ChannelGraph
  network: Network
  task: Task
  x: jax.Array  # training examples [n, ...]
  y: Any  # their targets, tree of [n, ...]
  key: jax.Array  # PRNG key


def random_scores(evidence: Evidence) -> np.ndarray:
  """Independent uniform scores: the control."""
  return np.asarray(jax.random.uniform(evidence.key, (evidence.graph.num_channels,)))


def l1_norm(evidence: Evidence) -> np.ndarray:
  """sum |W| of each filter, over the layer's mean (Li et al. 2017, arXiv 1608.08710)."""
  return _filter_scores(evidence, lambda filters: np.abs(filters).sum(-1))


def l2_norm(evidence: Evidence) -> np.ndarray:
  """sqrt(sum W^2) of each filter, over the layer's mean (He et al. 2018, arXiv 1808.06866)."""
  return _filter_scores(evidence, lambda filters: np.linalg.norm(filters, axis=-1))


def geometric_median(evidence: Evidence) -> np.ndarray:
  """FPGM: sum_j ||W_i - W_j|| within the layer, over its mean (He et al. 2019, arXiv 1811.00250).

  A filter near the layer's geometric median is replaced best by the others.
  """

  def distances(filters: np.ndarray) -> np.ndarray:
    squared = (filters**2).sum(-1)
    gram = squared[:, None] + squared[None] - 2 * filters @ filters.T
    return np.sqrt(np.maximum(gram, 0)).sum(-1)

  return _filter_scores(evidence, distances)


def bn_scale(evidence: Evidence) -> np.ndarray:
  """|gamma| of the channel's normalisation layers (Liu et al. 2017, arXiv 1708.06519).

  Gammas are the one-axis parameters named "scale". A channel without one scores as the mean of
  those with one.

  Raises:
    InputError: where no channel that can be removed has one.
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

  L is the task's loss of an example and m_i multiplies the channel wherever it is read, so that
  dL/dm_i = sum activation * dL/d activation. The loop over batches is Python's: a convolution's
  gradient is much slower inside a compiled loop on CPU.
  """
  masked_fn = masked(evidence.graph, evidence.network.eval_fn)

  def loss(mask, x, y):
    outputs = masked_fn(evidence.network.variables, mask, x[None])
    return evidence.task.loss(outputs, jax.tree.map(lambda leaf: leaf[None], y))[0]

  ones = jnp.ones(evidence.graph.num_channels)
  gradients = compilation.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))
  examples = (evidence.x, evidence.y)
  batches = (
    jax.tree.map(lambda rows, i=start: rows[i : i + _TAYLOR_BATCH], examples)
    for start in range(0, len(evidence.x), _TAYLOR_BATCH)
  )
  squared = sum((gradients(ones, *batch) ** 2).sum(0) for batch in batches)
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
  """The named criterion's score of every channel, float `[N]`.

  Raises:
    InputError: an unknown name, or a criterion that does not apply to this network.
  """
  check_criteria([name])
  return CRITERIA[name](evidence)


def check_criteria(names: Sequence[str]) -> None:
  """Raises InputError where a name is not that of a criterion."""
  for name in names:
    if name not in CRITERIA:
      raise InputError(f"criterion {name!r} is unknown: choose from {', '.join(CRITERIA)}")


def check_saliency(names: Sequence[str]) -> None:
  """As `check_criteria`, where the scores are to be features too, which "random" alone is not."""
  check_criteria(names)
  if set(names) <= {"random"}:
    raise InputError("criteria names no saliency score besides random: add at least one")


def vector_statistics(
  graph: ChannelGraph, variables: Any, name: str, transform: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray | None:
  """Mean over a channel's one-axis leaves of that name (last key of the path), float64 `[N]`.

  The "value" with which NNX ends every path does not count. Returns None where no such leaf
  carries a channel.
  """
  pieces = _vectors(graph, variables, name, transform)
  return mean_by_channel(graph.num_channels, pieces) if pieces else None


def _vectors(
  graph: ChannelGraph, variables: Any, name: str, transform: Callable[[np.ndarray], np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray]]:
  """(channel ids `[n]`, values `[n]`) of the leaves of `vector_statistics`."""
  return [
    (leaf.axes[0], transform(np.asarray(array, np.float64)))
    for leaf, array in zip(graph.leaves, jax.tree.leaves(variables), strict=True)
    if leaf.path.removesuffix("/value").split("/")[-1] == name
    and len(leaf.shape) == 1
    and (leaf.axes[0] != FROZEN).any()
  ]


def mean_by_channel(num_channels: int, pieces: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
  """Mean of values per channel id, over (ids `[n]`, values `[n]`) pieces; 0 where there is none."""
  total, count = np.zeros(num_channels), np.zeros(num_channels)
  for ids, values in pieces:
    live = ids != FROZEN
    np.add.at(total, ids[live], values[live])
    np.add.at(count, ids[live], 1)
  return total / np.maximum(count, 1)


def _scores_by_channel(
  num_channels: int, pieces: list[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
  """`mean_by_channel`; where there is none the mean of the others, to be neither first nor last."""
  values = mean_by_channel(num_channels, pieces)
  is_scored = mean_by_channel(num_channels, [(ids, np.ones(len(ids))) for ids, _ in pieces]) > 0
  return np.where(is_scored, values, values.sum() / max(is_scored.sum(), 1))


def _filter_scores(evidence: Evidence, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
  """Scores each layer's filters `[n_out, fan_in]`, divides by the layer's mean, and averages."""
  arrays = jax.tree.leaves(evidence.network.variables)
  pieces = []
  for layer in evidence.graph.layers:
    if layer.kernel is None or layer.kernel_axes[1] is None:
      continue
    kernel = np.moveaxis(np.asarray(arrays[layer.kernel], np.float64), layer.kernel_axes[1], 0)
    values = score(kernel.reshape(len(kernel), -1))
    pieces.append((layer.outputs, values / max(values.mean(), np.finfo(np.float64).tiny)))
  return _scores_by_channel(evidence.graph.num_channels, pieces)
