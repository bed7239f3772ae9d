"""How masks are judged: as they are, and after the same fine-tuning for all of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.dense import Network, accuracy
from experiments.settings import Settings
import gatprune_jax as gp
from gatprune_jax.channels import ChannelGraph
from gatprune_jax.data import Split
from gatprune_jax.evaluation import (
  candidate_accuracies,
  in_chunks,
  largest_activation,
  masks_at_once,
  running_momentum,
  score_mask,
  train,
  train_candidates,
)
from gatprune_jax.metrics import MetricsFile, ProgressLine


class Finetuned(NamedTuple):
  """The network under every mask, after fine-tuning."""

  accuracies: Callable[[Split], np.ndarray]  # split -> [C]
  compact: Callable[[int], gp.Compact]  # index of a mask -> its network, in eval mode


class Judge:
  """Accuracies of masks `[C, N]` on a split, before and after fine-tuning."""

  def __init__(
    self,
    settings: Settings,
    network: Network,
    graph: ChannelGraph,
    variables: Any,
    train_split: Split,
    masks: np.ndarray,
  ):
    self._settings, self._network, self._graph = settings, network, graph
    self._variables, self._train, self._masks = variables, train_split, masks
    images = jnp.asarray(train_split.x)
    momentum = running_momentum(network.train_fn, variables, images[:64])
    calibration = images[: settings.search.calibration_images]

    @jax.jit
    def before(masks, variables, calibration, x, y):
      score = lambda mask: score_mask(
        graph, network.eval_fn, network.train_fn, momentum, variables, mask, calibration, x, y
      )
      chunk = settings.search.chunk or masks_at_once(
        largest_activation(network.eval_fn, variables, x), False, jax.default_backend()
      )
      return in_chunks(lambda mask: score(mask).correct.mean(), masks, chunk)

    self._before = lambda split: before(jnp.asarray(masks), variables, calibration, *split)

  def before(self, split: Split) -> np.ndarray:
    """Accuracies `[C]`, weights untouched, batch norm recalibrated on training images."""
    return np.asarray(self._before(split))

  def finetune(self, metrics: MetricsFile, phase: str = "finetune") -> Finetuned:
    """Fine-tunes the network under every mask, as masked copies or as compact networks."""
    side_by_side = self._settings.finetune_side_by_side
    way = self._masked_copies if side_by_side else self._compact_networks
    return way(metrics, phase)

  def _masked_copies(self, metrics: MetricsFile, phase: str) -> Finetuned:
    """All masks in one vmapped step, compiled once."""
    settings, network, graph, masks = self._settings, self._network, self._graph, self._masks
    line = ProgressLine(f"fine-tune {len(masks)} networks, epoch", settings.finetune.epochs)

    def on_epoch(epoch, values, _):
      metrics.write(phase, epoch, values)
      line.advance(**{name: f"{value:.3f}" for name, value in values.items()})

    stacked = train_candidates(
      graph, network.train_fn, self._variables, jnp.asarray(masks), self._train,
      settings.finetune, self._key(), on_epoch, self._teacher,
    )  # fmt: skip
    line.close()
    after = jax.jit(
      lambda v, x, y: candidate_accuracies(graph, network.eval_fn, v, jnp.asarray(masks), x, y)
    )

    def compact(index):
      weights = jax.tree.map(lambda leaf: leaf[index], stacked)
      allow_empty = settings.search.allow_empty
      return gp.compact(graph, network.eval_fn, weights, masks[index], allow_empty)

    return Finetuned(lambda split: np.asarray(after(stacked, *split)), compact)

  def _compact_networks(self, metrics: MetricsFile, phase: str) -> Finetuned:
    """One network after the other: each is compiled, and computes only what it keeps."""
    settings, network, graph = self._settings, self._network, self._graph
    line = ProgressLine(f"fine-tune {len(self._masks)} networks, network", len(self._masks))
    networks = []
    for index, mask in enumerate(self._masks, start=1):
      shrink = lambda fn, mask=mask: gp.compact(
        graph, fn, self._variables, mask, settings.search.allow_empty
      )
      history = []
      trained = train(
        shrink(network.train_fn).apply, shrink(network.eval_fn).variables, self._train,
        settings.finetune, self._key(), lambda epoch, values, _, log=history: log.append(values),
        self._teacher,
      )  # fmt: skip
      networks.append(gp.Compact(shrink(network.eval_fn).apply, trained))
      metrics.write(phase, index, history[-1])
      line.advance(**{name: f"{value:.3f}" for name, value in history[-1].items()})
    line.close()
    accuracies = lambda split: np.array([accuracy(n.apply, n.variables, split) for n in networks])
    return Finetuned(accuracies, lambda index: networks[index])

  def _key(self) -> jax.Array:
    """Of data order and augmentation, the same for every mask."""
    return jax.random.fold_in(jax.random.key(self._settings.seed), 1)

  def _teacher(self, x: jax.Array) -> jax.Array:
    return self._network.eval_fn(self._variables, x)
