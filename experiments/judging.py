"""How masks are judged: as they are, and after the same fine-tuning for all of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.dense import Network
from experiments.settings import Settings
from gatprune_jax.channels import ChannelGraph
from gatprune_jax.data import Split
from gatprune_jax.evaluation import (
  candidate_accuracies,
  in_chunks,
  running_momentum,
  score_mask,
  train_candidates,
)
from gatprune_jax.metrics import MetricsFile, ProgressLine


class Judge:
  """Accuracies `[C]` of masks `[C, N]` on a split, before and after fine-tuning."""

  def __init__(
    self,
    settings: Settings,
    network: Network,
    graph: ChannelGraph,
    variables: Any,
    train: Split,
    masks: np.ndarray,
  ):
    self._settings, self._network, self._graph = settings, network, graph
    self._variables, self._train, self._masks = variables, train, jnp.asarray(masks)
    images = jnp.asarray(train.x)
    momentum = running_momentum(network.train_fn, variables, images[:64])
    calibration = images[: settings.search.calibration_images]

    @jax.jit
    def before(x, y):
      score = lambda mask: score_mask(
        graph, network.eval_fn, network.train_fn, momentum, variables, mask, calibration, x, y
      )
      return in_chunks(lambda mask: score(mask).correct.mean(), self._masks, settings.search.chunk)

    self._before = before
    self._after = jax.jit(
      lambda v, x, y: candidate_accuracies(graph, network.eval_fn, v, self._masks, x, y)
    )

  def before(self, split: Split) -> np.ndarray:
    """Weights untouched, batch norm recalibrated on training images."""
    return np.asarray(self._before(*split))

  def after(self, finetuned: Any, split: Split) -> np.ndarray:
    """With the weights and statistics of `finetune`."""
    return np.asarray(self._after(finetuned, *split))

  def finetune(self, metrics: MetricsFile) -> Any:
    """Fine-tunes the network under every mask; returns stacked variables `[C, ...]`."""
    recipe = self._settings.finetune
    line = ProgressLine(f"fine-tune {len(self._masks)} networks, epoch", recipe.epochs)

    def on_epoch(epoch, values):
      metrics.write("finetune", epoch, values)
      line.advance(**{name: f"{value:.3f}" for name, value in values.items()})

    key = jax.random.fold_in(jax.random.key(self._settings.seed), 1)
    stacked = train_candidates(
      self._graph, self._network.train_fn, self._variables, self._masks, self._train, recipe, key,
      on_epoch, teacher=lambda x: self._network.eval_fn(self._variables, x),
    )  # fmt: skip
    line.close()
    return stacked
