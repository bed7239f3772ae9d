"""How masked networks are evaluated, both while a search scores masks and when methods are judged.

One object sets up what both need: the momenta of the running statistics, the calibration batches,
how many masks a device scores at once, and the compiled programs.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels import ChannelGraph
from gatprune_jax.data import Split
from gatprune_jax.errors import InputError
from gatprune_jax.evaluation.adaptation import AdaptationConfig, adaptation_batches
from gatprune_jax.evaluation.batching import largest_activation, masks_at_once
from gatprune_jax.evaluation.recalibration import running_momentum
from gatprune_jax.evaluation.scoring import (
  Score,
  Weights,
  mask_statistics,
  score_mask,
  score_with_statistics,
)
from gatprune_jax.networks import Network, Task
from gatprune_jax.runtime import compilation, mesh
from gatprune_jax.runtime.maps import equal_blocks, first_rows

_PROBE = 64  # training inputs on which the momenta are measured; any batch shows them


class Evaluator:
  """Scores masks of a network.

  Attributes:
    weights: what masks are evaluated with, on every device.
    chunk: how many masks a device scores at once.
  """

  def __init__(
    self,
    graph: ChannelGraph,
    network: Network,
    task: Task,
    train: Split,
    *,
    adaptation: AdaptationConfig,
    calibration_images: int,
    calibration_batch: int,
    num_images: int,
    samples: int,
    chunk: int = 0,
  ):
    """Compiles nothing yet.

    Args:
      graph: the network's channels.
      network: the trained network.
      task: loss and score.
      train: what adaptation and statistics are made of.
      adaptation: gradient steps before a mask is scored.
      calibration_images: training inputs for the statistics of each mask.
      calibration_batch: most of them that are normalised together; see `recalibrate`.
      num_images: on how many a mask is mostly scored.
      samples: how many masks are mostly scored in one call.
      chunk: masks that a device scores at once; 0: by activations and backend.

    Raises:
      InputError: where there are not so many training inputs.
    """
    check_calibration(calibration_images, train)
    self._graph, self._network, self._task = graph, network, task
    self._has_steps = adaptation.steps > 0
    inputs = jnp.asarray(train.x[:calibration_images])
    weights = Weights(
      network.variables,
      running_momentum(network, jnp.asarray(train.x[:_PROBE])),
      adaptation_batches(adaptation, train),
      equal_blocks(inputs, calibration_batch),
    )
    self.weights = mesh.replicate(weights)
    scored = jax.ShapeDtypeStruct((num_images, *inputs.shape[1:]), inputs.dtype)
    bytes_each = largest_activation(network.eval_fn, network.variables, scored)
    most = masks_at_once(bytes_each, self._has_steps, jax.default_backend())
    self.chunk = chunk or min(mesh.share(samples), most)
    self._call_size = max(samples, self.chunk * mesh.num_devices())

  def score(self, weights: Weights, mask: jax.Array, x: jax.Array, y: Any) -> Score:
    """Scores one mask on examples `[n, ...]`: pure, for programs that are compiled as a whole."""
    return score_mask(self._graph, self._network, self._task, weights, mask, x, y)

  def jit(self, fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`compilation.jit` of what scores masks, on all devices, with options of `jax.jit`."""
    shared = not self._has_steps  # else most of it are gradient steps
    return compilation.jit(fn, shared=shared, out_shardings=mesh.everywhere(), **options)

  def scores(self, masks: np.ndarray, x: jax.Array, y: Any) -> Score:
    """Scores `[C, n]` of masks `[C, N]`, each after the steps of the adaptation."""
    return self._in_calls(self._score_first, masks, mesh.replicate((x, y)))

  def statistics(self, masks: np.ndarray) -> tuple[np.ndarray, ...]:
    """The running statistics `[C, ...]` under every mask `[C, N]`, weights untouched."""
    return self._in_calls(self._calibrate_first, masks, ())

  def scores_with_statistics(
    self, masks: np.ndarray, statistics: tuple[np.ndarray, ...], x: jax.Array, y: Any
  ) -> Score:
    """Scores `[C, n]` of masks `[C, N]` with the dense weights and these statistics."""
    return self._in_calls(self._score_first_with, (masks, statistics), mesh.replicate((x, y)))

  @functools.cached_property
  def _score_first(self) -> Callable[..., Score]:
    one = lambda mask, weights, x, y: self.score(weights, mask, x, y)
    return self._first(one, self.jit)

  @functools.cached_property
  def _calibrate_first(self) -> Callable[..., Any]:
    one = lambda mask, weights: mask_statistics(self._graph, self._network, weights, mask)
    return self._first(one, functools.partial(compilation.jit, shared=True))

  @functools.cached_property
  def _score_first_with(self) -> Callable[..., Score]:
    def one(own, weights, x, y):
      mask, statistics = own
      return score_with_statistics(
        self._graph, self._network, self._task, weights, mask, statistics, x, y
      )

    return self._first(one, functools.partial(compilation.jit, shared=True))

  def _first(self, one: Callable[..., Any], jit: Callable[..., Any]) -> Callable[..., Any]:
    return jit(lambda rows, count, *same: first_rows(one, rows, count, self.chunk, *same))

  def _in_calls(self, first: Callable[..., Any], rows: Any, same: tuple[Any, ...]) -> Any:
    """In calls of one size, so that one is compiled; the last is filled up."""
    num, size, parts = len(jax.tree.leaves(rows)[0]), self._call_size, []
    for start in range(0, num, size):
      some = np.arange(start, min(start + size, num))
      filled = some[np.arange(size) % len(some)]
      chosen = jax.tree.map(lambda leaf, filled=filled: np.asarray(leaf)[filled], rows)
      parts.append(first(chosen, np.int32(len(some)), self.weights, *same))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num], *parts)


def check_calibration(num_images: int, train: Split) -> None:
  """Raises InputError where there are fewer training examples than statistics are to be made of."""
  if num_images > train.num:
    raise InputError(
      f"search calibration_images is {num_images}: there are {train.num} training images, so set "
      f"it to {train.num} or less"
    )
