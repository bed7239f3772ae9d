"""How much of the machine's arithmetic is used: seconds against matrix products of equal FLOPs."""

import jax
import jax.numpy as jnp

from experiments.benchmarks.finetuning import train_all
from experiments.benchmarks.masked_resnet import problem, training
from experiments.benchmarks.measuring import Row, alternating
from experiments.benchmarks.scoring import score_all

_SIDE = 2048


def ceiling() -> list[Row]:
  """Model FLOPs utilisation: the ratio of each row is a share of the measured matmul rate.

  A forward pass takes two FLOPs a multiply-add, a gradient step three times as many.
  """
  scored, trained, dense = problem(4, 256), problem(4, 64), problem(1, 128)
  matrix = jax.random.normal(jax.random.key(0), (_SIDE, _SIDE))
  matmul = jax.jit(jnp.matmul)
  t = training(dense, None)
  step = jax.jit(t.step)
  state = jax.tree.map(lambda leaf: leaf[0], t.states)
  everything = jnp.ones(dense.graph.num_channels, bool)

  reference, *seconds = alternating(
    lambda: matmul(matrix, matrix),
    score_all(scored),
    train_all(trained),
    lambda: step((state, everything), t.batch),
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
