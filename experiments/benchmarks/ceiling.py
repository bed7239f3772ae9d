"""How much of the machine's arithmetic is used: seconds against matrix products of equal FLOPs."""

import jax
import jax.numpy as jnp

from experiments.benchmarks.finetuning import all_at_once
from experiments.benchmarks.masked_resnet import aligned_training, masked_training, problem
from experiments.benchmarks.measuring import Row, alternating
from experiments.benchmarks.scoring import score_all
from gatprune_jax import compilation

_SIDE = 2048


def ceiling() -> list[Row]:
  """Model FLOPs utilisation: the ratio of each row is a share of the measured matmul rate.

  A forward pass takes two FLOPs a multiply-add, a gradient step three times as many.
  """
  scored = problem(4, 256)
  trained, dense = aligned_training(problem(4, 64)), masked_training(problem(1, 128))
  matrix = jax.random.normal(jax.random.key(0), (_SIDE, _SIDE))
  matmul = jax.jit(jnp.matmul)
  step = compilation.jit(dense.step)
  candidate = jax.tree.map(lambda leaf: leaf[0], dense.candidates)

  reference, *seconds = alternating(
    lambda: matmul(matrix, matrix),
    score_all(scored),
    all_at_once(trained),
    lambda: step(candidate, dense.batch),
    repeats=3,
  )
  rate = 2 * _SIDE**3 / reference
  flops = {
    "score 4 masks of resnet20, 512 images each": 2 * scored.macs * 4 * 512,
    "a step of 4 candidates of resnet20, batch 64": 6 * trained.macs * 4 * 64,
    "a step of dense resnet20, batch 128": 6 * dense.macs * 128,
  }
  note = f"matmul rate {rate / 1e9:.0f} GFLOP/s"
  return [
    Row(name, own, "matmul, same FLOPs", work / rate, work / rate / own, note)
    for (name, work), own in zip(flops.items(), seconds, strict=True)
  ]
