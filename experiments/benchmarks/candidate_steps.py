"""Benchmarks of training several masked candidates, each with weights of its own."""

from collections.abc import Callable, Iterator
import functools
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.masked_resnet import (
  Problem,
  TrainingCase,
  aligned_training,
  masked_training,
  problem,
)
from experiments.benchmarks.measuring import Measurement, alternating, dtypes, rows_against
from experiments.benchmarks.peers import adapter
from gatprune_jax.runtime import compilation, mesh
from gatprune_jax.runtime.maps import over_rows, over_shares

_CANDIDATES, _BATCH = 8, 64


def finetuning() -> Iterator[Measurement]:
  """Compares one step of all candidates with other ways to compute it in JAX.

  These are a jitted step for each candidate in turn, vmap of the step with XLA's convolution and,
  on CPU, the same program compiled by `jax.jit`, without the compiler options
  of `compilation.jit`.
  """
  for dtype in dtypes():
    p = problem(_CANDIDATES, _BATCH, dtype)
    plain, aligned = masked_training(p), aligned_training(p)
    one, vmapped = jax.jit(plain.step), jax.jit(jax.vmap(plain.step, (0, None)))
    candidates = [
      jax.tree.map(lambda leaf, i=index: leaf[i], plain.candidates) for index in range(_CANDIDATES)
    ]
    references = {
      "jitted step in a Python loop": lambda one=one, candidates=candidates, plain=plain: [
        one(candidate, plain.batch) for candidate in candidates
      ],
      "vmap, XLA's convolution": functools.partial(vmapped, plain.candidates, plain.batch),
    }
    if jax.default_backend() == "cpu":
      references["the same by jax.jit"] = all_at_once(aligned, jax.jit)
    ours, *theirs = alternating(all_at_once(aligned), *references.values(), repeats=3)
    speed = f"{_CANDIDATES * _BATCH / ours:.0f} images/s"
    note = f"{speed}, {aligned.macs / plain.macs:.2f} of the MACs"
    yield from rows_against(_name(p), ours, dict(zip(references, theirs, strict=True)), note)


def finetuning_against_torch() -> Iterator[Measurement]:
  """Compares one step of all candidates with a loop over them in PyTorch, in each memory layout.

  Raises:
    Skipped: if PyTorch is not installed.
  """
  torch_network = adapter("torch")
  layouts = list(torch_network.FORMATS)
  for dtype in dtypes():
    p = problem(_CANDIDATES, _BATCH, dtype)
    loops = [
      torch_network.trainer(_CANDIDATES, np.asarray(p.x), layout, dtype) for layout in layouts
    ]
    ours, *theirs = alternating(all_at_once(aligned_training(p)), *loops, repeats=3)
    for layout, seconds in zip(layouts, theirs, strict=True):
      yield Measurement(_name(p), ours, "PyTorch loop", seconds, seconds / ours, layout)


def all_at_once(training: TrainingCase, jit: Callable = compilation.jit) -> functools.partial[Any]:
  """Returns a call of one step of all candidates as in `train_candidates`, compiled by `jit`."""

  def side_by_side(candidates, batch):
    return over_rows(lambda one: training.step(one, batch), candidates), ()

  step = jit(over_shares(side_by_side, _CANDIDATES))
  return functools.partial(
    step, mesh.share_out(training.candidates), mesh.replicate(training.batch)
  )


def _name(p: Problem) -> str:
  return f"a step of {_CANDIDATES} candidates of resnet20, batch {_BATCH}, {p.dtype}"
