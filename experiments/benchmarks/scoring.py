"""How fast masks are scored, batch norm recalibrated for each."""

from collections.abc import Callable

import jax
import numpy as np

from experiments.benchmarks.masked_resnet import Problem, problem
from experiments.benchmarks.measuring import Row, alternating, rows_against
from experiments.benchmarks.peers import adapter
import gatprune_jax as gp
from gatprune_jax import compilation
from gatprune_jax.evaluation import (
  largest_activation,
  masks_at_once,
  recalibrate,
  running_momentum,
  score_logits,
  score_mask,
)

_MASKS, _IMAGES = 16, 256  # as many images for the statistics as for the score
_NAME = f"score {_MASKS} masks of resnet20, {2 * _IMAGES} images each"


def scoring() -> list[Row]:
  """Against one forward pass over the same images a mask, and against what one writes first."""
  p = problem(_MASKS, _IMAGES)
  momentum = running_momentum(p.train_fn, p.variables, p.x[:64])
  images = np.concatenate([p.x, p.calibration])
  plain_fn = compilation.jit(lambda variables, x: p.eval_fn(variables, x))

  @jax.jit
  def naive(variables, masks, calibration, x, y):
    masked_train, masked_eval = gp.masked(p.graph, p.train_fn), gp.masked(p.graph, p.eval_fn)

    def one(mask):
      own = recalibrate(
        lambda v, batch: masked_train(v, mask, batch), momentum, variables, calibration
      )
      return score_logits(masked_eval(own, mask, x), y).correct.mean()

    return jax.vmap(one)(masks)

  ours, without_options, plain, vmapped = alternating(
    score_all(p),
    score_all(p, jax.jit),
    lambda: [plain_fn(p.variables, images) for _ in p.masks],
    lambda: naive(p.variables, p.masks, p.calibration, p.x, p.y),
    repeats=3,
  )
  note = f"{_MASKS / ours:.2f} masks/s"
  references = {
    "the same by jax.jit": without_options,
    "forward pass, same FLOPs": plain,
    "vmap over all masks": vmapped,
  }
  return rows_against(_NAME, ours, references, note)


def scoring_against_torch() -> list[Row]:
  """Against a loop over masks in PyTorch: as one writes it first, and at its best.

  Raises:
    Skipped: without PyTorch.
  """
  torch_network = adapter("torch")
  p = problem(_MASKS, _IMAGES)
  settings = [(batch, layout) for batch in (64, 128, 256) for layout in torch_network.FORMATS]
  x, calibration = np.asarray(p.x), np.asarray(p.calibration)
  loops = [torch_network.scorer(_MASKS, x, calibration, *setting) for setting in settings]
  ours, *theirs = alternating(score_all(p), *loops, repeats=3)
  best = int(np.argmin(theirs))
  batch, layout = settings[best]
  note = f"PyTorch's best: batch {batch}, {layout}"
  first = settings.index((256, "NCHW"))
  rows = ((first, "PyTorch loop", "batch 256, NCHW"), (best, "PyTorch loop, tuned", note))
  return [Row(_NAME, ours, name, theirs[i], theirs[i] / ours, told) for i, name, told in rows]


def score_all(p: Problem, jit: Callable = compilation.jit) -> Callable[[], list[jax.Array]]:
  """Scores the masks of a problem as a search does, compiled by `jit`."""
  momentum = running_momentum(p.train_fn, p.variables, p.x[:64])
  activation = largest_activation(p.eval_fn, p.variables, p.x)
  chunk = min(len(p.masks), masks_at_once(activation, False, jax.default_backend()))

  def one(variables, mask, calibration, x, y):
    return score_mask(
      p.graph, p.eval_fn, p.train_fn, momentum, variables, mask, calibration, x, y
    ).correct.mean()

  score = jit(jax.vmap(one, (None, 0, None, None, None)))
  chunks = [p.masks[start : start + chunk] for start in range(0, len(p.masks), chunk)]
  return lambda: [score(p.variables, some, p.calibration, p.x, p.y) for some in chunks]
