"""How masks are judged: as they are, and after the same fine-tuning for all of them."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.dense import Network, accuracy, lines_of_epochs
from experiments.journal import Journal
from experiments.settings import Settings
import gatprune_jax as gp
from gatprune_jax import compilation, mesh
from gatprune_jax.channels import ChannelGraph
from gatprune_jax.data import Split
from gatprune_jax.evaluation import (
  candidate_accuracies,
  equal_blocks,
  in_chunks,
  largest_activation,
  masked_logits,
  masks_at_once,
  recalibrate_mask,
  running_momentum,
  score_logits,
  train,
  train_candidates,
)


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
    momentum = running_momentum(network.train_fn, variables, jnp.asarray(train_split.x[:64]))
    search = settings.search
    images = jnp.asarray(train_split.x[: search.calibration_images])
    calibration = equal_blocks(images, search.calibration_batch)
    bytes_each = largest_activation(network.eval_fn, variables, images)
    chunk = search.chunk or masks_at_once(bytes_each, False, jax.default_backend())

    @mesh.over_devices
    def statistics(masks, variables, momentum, calibration):
      def of_mask(mask):
        calibrated = recalibrate_mask(
          graph, network.train_fn, momentum, variables, mask, calibration
        )
        return {name: tree for name, tree in calibrated.items() if name != "params"}

      return in_chunks(of_mask, masks, chunk)

    @mesh.over_devices
    def num_correct(masks_and_statistics, variables, x, y):
      def of_mask(mask_and_statistics):
        mask, own = mask_and_statistics
        logits = masked_logits(graph, network.eval_fn, {**variables, **own}, mask, x)
        return score_logits(logits, y).correct.sum()

      return in_chunks(of_mask, masks_and_statistics, chunk)

    compiled = functools.partial(compilation.jit, shared=True, out_shardings=mesh.everywhere())
    self._everywhere = mesh.replicate(variables)
    momentum, calibration = mesh.replicate((momentum, calibration))
    masks = mesh.replicate(masks)
    own = compiled(statistics)(masks, self._everywhere, momentum, calibration)
    self._masks_and_statistics = (masks, own)
    self._num_correct = compiled(num_correct)

  def before(self, split: Split) -> np.ndarray:
    """Accuracies `[C]`, weights untouched, batch norm recalibrated on training images."""
    correct = sum(
      self._num_correct(self._masks_and_statistics, self._everywhere, *piece)
      for piece in split.pieces()
    )
    return np.asarray(correct) / len(split.y)

  def finetune(self, journal: Journal, phase: str = "finetune") -> Finetuned:
    """Fine-tunes the network under every mask, side by side or in turn."""
    at_once = self._settings.finetune_side_by_side
    way = self._side_by_side if at_once else self._in_turn
    return way(journal, phase)

  def _side_by_side(self, journal: Journal, phase: str) -> Finetuned:
    """All networks at one shape in one vmapped step, compiled once."""
    settings, network, graph, masks = self._settings, self._network, self._graph, self._masks
    title = f"fine-tune {len(masks)} networks, epoch"
    with journal.loop(phase, title, settings.finetune.epochs) as loop:
      line_of = lines_of_epochs(settings.finetune, self._train)
      stacked = train_candidates(
        graph, network.train_fn, self._variables, jnp.asarray(masks), self._train,
        settings.finetune, self._key(), lambda epoch, values, _: loop.record(epoch, values),
        self._teacher, loop.store(journal.every.steps, line_of),
      )  # fmt: skip
    one_share = lambda own, x, y: ((), candidate_accuracies(graph, network.eval_fn, *own, x, y))
    after = compilation.jit(mesh.over_shares(one_share, len(masks)), shared=True)
    shared = mesh.share_out((stacked, masks))

    def accuracies(split):
      correct = sum(after(shared, *piece)[1] * len(piece.y) for piece in split.pieces())
      return np.asarray(correct) / len(split.y)

    def compact(index):
      weights = jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), stacked)
      allow_empty = settings.search.allow_empty
      return gp.compact(graph, network.eval_fn, weights, masks[index], allow_empty)

    return Finetuned(accuracies, compact)

  def _in_turn(self, journal: Journal, phase: str) -> Finetuned:
    """One compact network after the other: each is compiled, and computes only what it keeps."""
    settings, network, graph = self._settings, self._network, self._graph
    networks = []
    title = f"fine-tune {len(self._masks)} networks, network"
    with journal.loop(phase, title, len(self._masks)) as loop:
      for index, mask in enumerate(self._masks, start=1):
        shrink = lambda fn, mask=mask: gp.compact(
          graph, fn, self._variables, mask, settings.search.allow_empty
        )
        store = loop.store(journal.every.steps, lambda _, i=index: i - 1, f"{phase}/{index}")
        history = []
        trained = train(
          shrink(network.train_fn).apply, shrink(network.eval_fn).variables, self._train,
          settings.finetune, self._key(), lambda epoch, values, _, log=history: log.append(values),
          self._teacher, store,
        )  # fmt: skip
        networks.append(gp.Compact(shrink(network.eval_fn).apply, trained))
        loop.record(index, history[-1])
    accuracies = lambda split: np.array([accuracy(n.apply, n.variables, split) for n in networks])
    return Finetuned(accuracies, lambda index: networks[index])

  def _key(self) -> jax.Array:
    """Of data order and augmentation, the same for every mask."""
    return jax.random.fold_in(jax.random.key(self._settings.seed), 1)

  def _teacher(self, x: jax.Array) -> jax.Array:
    return self._network.eval_fn(self._variables, x)
