"""The evaluator of masked networks, used to score masks in a search and to compare methods.

The evaluator sets up what both uses need: the momenta of the running statistics, the calibration
batches, the number of masks that a device scores at once, and the compiled programs.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels import (
  ChannelGraph,
  measure_compensation,
)
from gatprune_jax.data import Split
from gatprune_jax.errors import InputError
from gatprune_jax.evaluation.adaptation import AdaptationConfig, adaptation_batches
from gatprune_jax.evaluation.batching import largest_activation, masks_at_once
from gatprune_jax.evaluation.recalibration import running_momentum
from gatprune_jax.evaluation.scoring import (
  Score,
  Weights,
  compensated_weights,
  mask_statistics,
  recovered,
  score_with_statistics,
)
from gatprune_jax.networks import Network, Task
from gatprune_jax.runtime import compilation, mesh
from gatprune_jax.runtime.maps import equal_blocks, first_rows

_PROBE = 64  # training inputs on which the momenta are measured; any batch would give the same


class Evaluator:
  """Scores masks of a network.

  Attributes:
    weights: the arrays that masks are evaluated with, copied to every device.
    chunk: number of masks that a device scores at once.
  """

  def __init__(
    self,
    graph: ChannelGraph,
    network: Network,
    task: Task,
    train: Split,
    *,
    compensation_ridge: float,
    adaptation: AdaptationConfig,
    calibration_images: int,
    calibration_batch: int,
    num_images: int,
    samples: int,
    chunk: int = 0,
  ):
    """Prepares the arrays for scoring; the programs that score masks are compiled on first use.

    Args:
      graph: the network's channels.
      network: the trained network.
      task: provides the loss and the score.
      train: training examples for adaptation steps, running statistics and compensation.
      compensation_ridge: ridge penalty of `measure_compensation`; 0: weights are not compensated.
      adaptation: settings of the gradient steps before a mask is scored.
      calibration_images: number of training inputs for the running statistics of each mask, and
        for the compensation.
      calibration_batch: largest number of these inputs that are normalised together as one batch;
        see `recalibrate`.
      num_images: number of images that a mask is usually scored on.
      samples: number of masks that are usually scored in one call.
      chunk: number of masks that a device scores at once; 0 chooses the number from the size of
        activations and the backend.

    Raises:
      InputError: there are fewer training inputs than adaptation or statistics need.
    """
    check_calibration(calibration_images, train)
    self._graph, self._network, self._task = graph, network, task
    self._has_steps = adaptation.steps > 0
    inputs = jnp.asarray(train.x[:calibration_images])
    compensation = None
    if compensation_ridge:
      compensation = mesh.agree(
        measure_compensation(graph, network.eval_fn, network.variables, inputs, compensation_ridge)
      )
    weights = Weights(
      network.variables,
      running_momentum(network, jnp.asarray(train.x[:_PROBE])),
      adaptation_batches(adaptation, train, network),
      equal_blocks(inputs, calibration_batch),
      compensation,
    )
    self.weights = mesh.replicate(weights)
    scored = jax.ShapeDtypeStruct((num_images, *inputs.shape[1:]), inputs.dtype)
    bytes_each = largest_activation(network.eval_fn, network.variables, scored)
    own_weights = self._has_steps or compensation is not None
    most = masks_at_once(bytes_each, own_weights, jax.default_backend())
    self.chunk = chunk or min(mesh.share(samples), most)
    self._call_size = max(samples, self.chunk * mesh.num_devices())

  def score(self, weights: Weights, mask: jax.Array, x: jax.Array, y: Any) -> Score:
    """Scores one mask as a pure function, for use in programs that are compiled as a whole.

    It computes what `score_mask` does.

    Args:
      weights: the arrays that the mask is evaluated with, usually the attribute `weights`.
      mask: `[N]`, 1 = keep.
      x: inputs `[n, ...]`.
      y: targets, tree of `[n, ...]`.
    """
    variables, statistics = self._recovered(weights, mask)
    own = weights._replace(variables=variables, compensation=None)
    return score_with_statistics(
      self._graph, self._network, self._task, own, mask, statistics, x, y
    )

  def jit(self, fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compiles a function that scores masks, for all devices; options are those of `jax.jit`."""
    # `shared` marks programs of forward passes. With adaptation steps, most work is for gradients.
    shared = not self._has_steps
    return compilation.jit(fn, shared=shared, out_shardings=mesh.everywhere(), **options)

  def scores(self, masks: np.ndarray, x: jax.Array, y: Any) -> Score:
    """Scores each mask after its adaptation steps.

    Args:
      masks: `[C, N]`, 1 = keep.
      x: inputs `[n, ...]`.
      y: targets, tree of `[n, ...]`.

    Returns:
      Scores and losses `[C, n]`.
    """
    return self._in_calls(self._score_first, masks, mesh.replicate((x, y)))

  def compensated(self, mask: np.ndarray) -> Any:
    """Returns the dense network's variables, compensated for a mask `[N]`, on the host."""
    stacked = self._in_calls(self._compensate_first, mask[None], ())
    return jax.tree.map(lambda leaf: leaf[0], stacked)

  def statistics(self, masks: np.ndarray) -> tuple[np.ndarray, ...]:
    """Computes the running statistics `[C, ...]` under masks `[C, N]`, without adaptation steps.

    The weights are compensated for each mask.
    """
    return self._in_calls(self._calibrate_first, masks, ())

  def scores_with_statistics(
    self, masks: np.ndarray, statistics: tuple[np.ndarray, ...], x: jax.Array, y: Any
  ) -> Score:
    """Scores masks without adaptation steps, with given running statistics.

    The weights are compensated for each mask.

    Args:
      masks: `[C, N]`, 1 = keep.
      statistics: the running statistics `[C, ...]` of each mask, from `statistics`.
      x: inputs `[n, ...]`.
      y: targets, tree of `[n, ...]`.

    Returns:
      Scores and losses `[C, n]`.
    """
    return self._in_calls(self._score_first_with, (masks, statistics), mesh.replicate((x, y)))

  @functools.cached_property
  def _recovered(self) -> Callable[..., Any]:
    """`recovered`, which JAX traces once for all programs that score masks.

    Tracing it takes seconds, and several programs score masks on different numbers of images.
    `inline` puts the traced operations into each program without a call between them.
    """
    one = functools.partial(recovered, self._graph, self._network, self._task)
    return jax.jit(one, inline=True)

  @functools.cached_property
  def _score_first(self) -> Callable[..., Score]:
    one = lambda mask, weights, x, y: self.score(weights, mask, x, y)
    return self._first(one, self.jit)

  @functools.cached_property
  def _compensate_first(self) -> Callable[..., Any]:
    one = lambda mask, weights: compensated_weights(weights, mask).variables
    return self._first(one, functools.partial(compilation.jit, shared=True))

  @functools.cached_property
  def _calibrate_first(self) -> Callable[..., Any]:
    def one(mask, weights):
      own = compensated_weights(weights, mask)
      return mask_statistics(self._graph, self._network, own, mask)

    return self._first(one, functools.partial(compilation.jit, shared=True))

  @functools.cached_property
  def _score_first_with(self) -> Callable[..., Score]:
    def one(own, weights, x, y):
      mask, statistics = own
      weights = compensated_weights(weights, mask)
      return score_with_statistics(
        self._graph, self._network, self._task, weights, mask, statistics, x, y
      )

    return self._first(one, functools.partial(compilation.jit, shared=True))

  def _first(self, one: Callable[..., Any], jit: Callable[..., Any]) -> Callable[..., Any]:
    return jit(lambda rows, count, *same: first_rows(one, rows, count, self.chunk, *same))

  def _in_calls(self, first: Callable[..., Any], rows: Any, same: tuple[Any, ...]) -> Any:
    """Applies a compiled function to rows in calls of equal size; returns NumPy arrays.

    Because all calls have the same size, only one program is compiled. Repeated rows fill up the
    last call, and their results are dropped.
    """
    num, size, parts = len(jax.tree.leaves(rows)[0]), self._call_size, []
    for start in range(0, num, size):
      some = np.arange(start, min(start + size, num))
      filled = some[np.arange(size) % len(some)]
      chosen = jax.tree.map(lambda leaf, filled=filled: np.asarray(leaf)[filled], rows)
      parts.append(first(chosen, np.int32(len(some)), self.weights, *same))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num], *parts)


def check_calibration(num_images: int, train: Split) -> None:
  """Raises InputError if there are fewer than `num_images` training examples."""
  if num_images > train.num:
    raise InputError(
      f"search calibration_images is {num_images}: there are {train.num} training images, so set "
      f"it to {train.num} or less"
    )
