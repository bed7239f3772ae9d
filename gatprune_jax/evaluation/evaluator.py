"""The evaluator of masked networks, used to score masks in a search and to compare methods.

The evaluator sets up what both uses need: the momenta of the running statistics, the calibration
batches, the number of masks that a device scores at once, and the compiled programs. Every method
and every part of a search scores masks by one program, so that it is compiled only once.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

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
  score_mask,
  score_with_statistics,
)
from gatprune_jax.networks import Network, Task
from gatprune_jax.runtime import compilation, mesh
from gatprune_jax.runtime.maps import equal_blocks, first_rows

_PROBE = 64  # training inputs on which the momenta are measured; any batch would give the same


class Examples(NamedTuple):
  """Examples on which masks are scored, from `Evaluator.place`; on every device.

  They are filled up to a number of rows that differs little between splits, so that one compiled
  program serves all of them.
  """

  x: jax.Array  # [n, ...], of which the first `num` are examples
  y: Any  # targets, tree of [n, ...]
  num: int


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
    self._num_images = num_images
    own_weights = adaptation.steps > 0 or compensation is not None
    most = masks_at_once(bytes_each, own_weights, jax.default_backend())
    self.chunk = chunk or min(mesh.share(samples), most)
    self._call_size = max(samples, self.chunk * mesh.num_devices())

  def place(self, split: Split) -> Examples:
    """Puts the examples of a split on every device; see `Examples`."""
    rows = np.arange(max(split.num, self._num_images)) % split.num
    # Photographs are decoded when they are read, so they are read before rows are repeated.
    put = lambda leaf: mesh.replicate(jnp.asarray(leaf[:][rows]))
    return Examples(put(split.x), jax.tree.map(put, split.y), split.num)

  def scores(self, masks: np.ndarray, examples: Examples) -> Score:
    """Scores each mask on weights of its own, as `score_mask` does.

    Args:
      masks: `[C, N]`, 1 = keep, C at least 1.
      examples: n examples, from `place`.

    Returns:
      Scores and losses `[C, n]`.
    """
    x, y, num = examples
    scores = self._in_calls(self._score_first, masks, (x, y, np.int32(num)))
    return jax.tree.map(lambda rows: rows[:, :num], scores)

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
  def _score_first(self) -> Callable[..., Score]:
    def score(mask, weights, x, y, count):
      return score_mask(self._graph, self._network, self._task, weights, mask, x, y, count)

    return self._first(score)

  @functools.cached_property
  def _compensate_first(self) -> Callable[..., Any]:
    def compensate(mask, weights):
      return compensated_weights(weights, mask).variables

    return self._first(compensate)

  @functools.cached_property
  def _calibrate_first(self) -> Callable[..., Any]:
    def calibrate(mask, weights):
      own = compensated_weights(weights, mask)
      return mask_statistics(self._graph, self._network, own, mask)

    return self._first(calibrate)

  @functools.cached_property
  def _score_first_with(self) -> Callable[..., Score]:
    def score_with(own, weights, x, y):
      mask, statistics = own
      weights = compensated_weights(weights, mask)
      return score_with_statistics(
        self._graph, self._network, self._task, weights, mask, statistics, x, y
      )

    return self._first(score_with)

  def _first(self, one: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function of one row for the first rows; see `first_rows` and `compilation.jit`."""

    def first(rows, count, *same):
      return first_rows(one, rows, count, self.chunk, *same)

    first.__name__ = f"{one.__name__}_first"  # the program's name in XLA's dumps and JAX's logs
    return compilation.jit(first, shared=True, out_shardings=mesh.everywhere())

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
