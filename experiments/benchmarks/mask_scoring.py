"""Benchmarks of scoring masks, with batch norm recalibrated for each mask."""

from collections.abc import Callable, Iterator
import functools
import itertools
import resource
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.masked_resnet import Problem, problem
from experiments.benchmarks.measuring import Measurement, alternating, dtypes, rows_against
from experiments.benchmarks.peers import adapter
from gatprune_jax.channels import RIDGE
from gatprune_jax.data import Split
from gatprune_jax.evaluation import (
  AdaptationConfig,
  Evaluator,
  recalibrate,
  running_momentum,
  score_mask,
)
from gatprune_jax.networks import CLASSIFICATION, masked_network
from gatprune_jax.runtime import compilation, mesh
from gatprune_jax.runtime.maps import first_rows

_MASKS, _IMAGES = 16, 256  # 256 images for the statistics, and 256 for the score
_BATCH = 64  # images for the statistics that are normalised together
_jit = functools.partial(compilation.jit, shared=True)


def scoring() -> Iterator[Measurement]:
  """Compares the scoring of masks with other computations in JAX.

  These are a forward pass of the dense network over the same images for each mask, the simplest
  implementation of scoring (vmap over all masks), and, on CPU, the same program compiled by
  `jax.jit`, without the compiler options of `compilation.jit`.
  """
  for dtype in dtypes():
    p = problem(_MASKS, _IMAGES, dtype)
    images = np.concatenate([p.x, p.calibration])
    plain_fn = compilation.jit(p.network.eval_fn)
    references = {
      "forward pass, same FLOPs": lambda p=p, fn=plain_fn, images=images: [
        fn(p.network.variables, images) for _ in p.masks
      ],
      "vmap over all masks": _written_first(p),
    }
    if jax.default_backend() == "cpu":
      references["the same by jax.jit"] = score_all(p, jax.jit)
    ours, *theirs = alternating(score_all(p), *references.values(), repeats=3)
    note = f"{_MASKS / ours:.2f} masks/s"
    yield from rows_against(_name(p), ours, dict(zip(references, theirs, strict=True)), note)


def scoring_compensated() -> Iterator[Measurement]:
  """Compares scoring on weights that are compensated for each mask with scoring on shared weights.

  The two differ so little that they are called in turn more often than what `scoring` compares.
  """
  for dtype in dtypes():
    p = problem(_MASKS, _IMAGES, dtype)
    compensated, shared = alternating(score_all(p, ridge=RIDGE), score_all(p))
    yield from rows_against(_name(p), compensated, {"the same, weights as they are": shared}, "")


def scoring_photographs() -> Iterator[Measurement]:
  """Compares the scoring of masks of ResNet-50 at 224x224 with forward passes of the same FLOPs.

  The weights are compensated for each mask. The note is the largest memory that the process has had
  so far, which is that of scoring where this benchmark runs alone.
  """
  for dtype in dtypes():
    p = problem(4, 64, dtype, "resnet50", 224)
    images = np.concatenate([p.x, p.calibration])
    plain_fn = compilation.jit(p.network.eval_fn)
    blocks = np.split(images, len(images) // _BATCH)
    forward = lambda p=p, fn=plain_fn, blocks=blocks: [
      fn(p.network.variables, block) for _ in p.masks for block in blocks
    ]
    ours, theirs = alternating(score_all(p, ridge=RIDGE), forward, repeats=3)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB
    references = {"forward pass, same FLOPs": theirs}
    yield from rows_against(_name(p, "resnet50"), ours, references, f"{memory:.1f} GiB")


def scoring_against_torch() -> Iterator[Measurement]:
  """Compares the scoring of masks with a loop over masks in PyTorch, at two settings.

  One setting is usual: batches of 256 images in NCHW layout. The other is the fastest of all tried.

  Raises:
    Skipped: if PyTorch is not installed.
  """
  torch_network = adapter("torch")
  settings = list(itertools.product((64, 128, 256), torch_network.FORMATS))
  for dtype in dtypes():
    p = problem(_MASKS, _IMAGES, dtype)
    x, calibration = np.asarray(p.x), np.asarray(p.calibration)
    loops = [torch_network.scorer(_MASKS, x, calibration, *setting, dtype) for setting in settings]
    ours, *theirs = alternating(score_all(p), *loops, repeats=3)
    best = int(np.argmin(theirs))
    batch, layout = settings[best]
    note = f"PyTorch's best: batch {batch}, {layout}"
    first = settings.index((256, "NCHW"))
    rows = ((first, "PyTorch loop", "batch 256, NCHW"), (best, "PyTorch loop, tuned", note))
    for i, name, told in rows:
      yield Measurement(_name(p), ours, name, theirs[i], theirs[i] / ours, told)


def score_all(p: Problem, jit: Callable = _jit, ridge: float = 0.0) -> functools.partial[Any]:
  """Returns a call that scores all masks of a problem as a search does, compiled by `jit`."""
  train = Split(np.asarray(p.calibration), np.asarray(p.y))
  evaluator = Evaluator(
    p.graph, p.network, CLASSIFICATION, train, compensation_ridge=ridge,
    adaptation=AdaptationConfig(steps=0),
    calibration_images=len(p.calibration), calibration_batch=_BATCH, num_images=len(p.x),
    samples=len(p.masks),
  )  # fmt: skip

  def score(masks, weights, x, y):
    one = lambda mask, *same: score_mask(
      p.graph, p.network, CLASSIFICATION, same[0], mask, *same[1:]
    ).score.mean()
    return first_rows(one, masks, len(masks), evaluator.chunk, weights, x, y)

  args = mesh.replicate((p.masks, evaluator.weights, p.x, p.y))
  return functools.partial(jit(score), *args)


def _written_first(p: Problem) -> Callable[[], jax.Array]:
  """Returns a call of the simplest implementation: vmap over all masks, with all images at once."""
  momentum = running_momentum(p.network, p.x[:64])

  def one(mask, variables, calibration, x, y):
    under_mask = masked_network(p.graph, p.network, mask)
    own = recalibrate(under_mask, momentum, variables, calibration)
    return CLASSIFICATION.score(under_mask.eval_fn(own, x), y).mean()

  score = jax.jit(jax.vmap(one, (0, None, None, None, None)))
  args = (p.masks, p.network.variables, p.calibration[None], p.x, p.y)
  return functools.partial(score, *args)


def _name(p: Problem, network: str = "resnet20") -> str:
  return f"score {len(p.masks)} masks of {network}, {2 * len(p.x)} images each, {p.dtype}"
