"""Benchmark of how much of the machine's peak is used, in FLOPs and in memory bandwidth.

Both peaks are measured: one by a matrix product, the other by a copy of a large array.
"""

from collections.abc import Iterator
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.benchmarks.candidate_steps import all_at_once
from experiments.benchmarks.mask_scoring import score_all
from experiments.benchmarks.masked_resnet import aligned_training, masked_training, problem
from experiments.benchmarks.measuring import Measurement, alternating, dtypes
from gatprune_jax.runtime import compilation, mesh


def ceiling() -> Iterator[Measurement]:
  """Measures the model FLOPs utilisation, and the share of the memory's bandwidth that is used.

  The ratio of a row is a share of the rate that was measured for matrix products, or for copies. A
  forward pass takes two FLOPs for each multiply-add, a gradient step three times as many. The bytes
  are those that XLA counts in its compiled program; it cannot count them if there are loops.
  """
  side, copied = (2048, 2**26) if jax.default_backend() == "cpu" else (8192, 2**30)
  for dtype in dtypes():
    works = _works(dtype)
    matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = functools.partial(jax.jit(jnp.matmul), matrix, matrix)
    copy = functools.partial(jax.jit(lambda x: x + 1), jnp.ones(copied // 4))
    calls = [work.call for work in works]
    product_seconds, copy_seconds, *seconds = alternating(product, copy, *calls, repeats=3)
    rate, bandwidth = 2 * side**3 / product_seconds, 2 * copied / copy_seconds
    for own, work in zip(seconds, works, strict=True):
      least, note = work.flops / rate, f"{rate / 1e9:.0f} GFLOP/s"
      yield Measurement(work.name, own, "matmul, same FLOPs", least, least / own, note)
      if (moved := _bytes_accessed(work.call)) > 0:
        least, note = moved / bandwidth, f"{bandwidth / 1e9:.0f} GB/s"
        yield Measurement(work.name, own, "copy, same bytes", least, least / own, note)


class _Work(NamedTuple):
  name: str
  call: functools.partial[Any]  # arguments bound to a jitted function
  flops: float


def _works(dtype: str) -> list[_Work]:
  scored, trained = problem(16, 256, dtype), aligned_training(problem(8, 64, dtype))
  dense = masked_training(problem(1, 128, dtype))
  candidate = jax.tree.map(lambda leaf: leaf[0], dense.candidates)
  args = mesh.replicate(candidate), mesh.share_out(dense.batch)
  step = functools.partial(compilation.jit(dense.step), *args)
  return [
    _Work(
      f"score 16 masks of resnet20, 512 images each, {dtype}",
      score_all(scored),
      2 * scored.macs * 16 * 512,
    ),
    _Work(
      f"a step of 8 candidates of resnet20, batch 64, {dtype}",
      all_at_once(trained),
      6 * trained.macs * 8 * 64,
    ),
    _Work(f"a step of dense resnet20, batch 128, {dtype}", step, 6 * dense.macs * 128),
  ]


def _bytes_accessed(call: functools.partial[Any]) -> float:
  """Returns the bytes that the compiled program of a jitted call accesses; 0 if it has loops."""
  program = call.func.lower(*call.args).compile()
  return 0.0 if " while(" in program.as_text() else program.cost_analysis()["bytes accessed"]
