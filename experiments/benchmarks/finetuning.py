"""How fast masked candidates with weights of their own are trained."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.masked_resnet import (
  Training,
  aligned_training,
  masked_training,
  problem,
)
from experiments.benchmarks.measuring import Row, alternating, rows_against
from experiments.benchmarks.peers import adapter
from gatprune_jax import compilation
from gatprune_jax.evaluation import over_candidates

_CANDIDATES, _BATCH = 8, 64
_NAME = f"a step of {_CANDIDATES} candidates of resnet20, batch {_BATCH}"


def finetuning() -> list[Row]:
  """Against a jitted step for one candidate after the other, and against vmap with XLA's."""
  p = problem(_CANDIDATES, _BATCH)
  plain, aligned = masked_training(p), aligned_training(p)
  one = jax.jit(plain.step)
  candidates = [
    jax.tree.map(lambda leaf, i=index: leaf[i], plain.candidates) for index in range(_CANDIDATES)
  ]
  vmapped = jax.jit(jax.vmap(plain.step, (0, None)))
  ours, without_options, in_a_loop, vmapped_seconds = alternating(
    all_at_once(aligned),
    all_at_once(aligned, jax.jit),
    lambda: [one(candidate, plain.batch) for candidate in candidates],
    lambda: vmapped(plain.candidates, plain.batch),
    repeats=3,
  )
  note = f"{_CANDIDATES * _BATCH / ours:.0f} images/s, {aligned.macs / plain.macs:.2f} of the MACs"
  references = {
    "the same by jax.jit": without_options,
    "jitted step in a Python loop": in_a_loop,
    "vmap, XLA's convolution": vmapped_seconds,
  }
  return rows_against(_NAME, ours, references, note)


def finetuning_against_torch() -> list[Row]:
  """Against a loop over whole masked candidates in PyTorch, in each of its layouts.

  Raises:
    Skipped: without PyTorch.
  """
  torch_network = adapter("torch")
  p = problem(_CANDIDATES, _BATCH)
  layouts = list(torch_network.FORMATS)
  loops = [torch_network.trainer(_CANDIDATES, np.asarray(p.x), layout) for layout in layouts]
  ours, *theirs = alternating(all_at_once(aligned_training(p)), *loops, repeats=3)
  return [
    Row(_NAME, ours, "PyTorch loop", seconds, seconds / ours, layout)
    for layout, seconds in zip(layouts, theirs, strict=True)
  ]


def all_at_once(training: Training, jit: Callable = compilation.jit) -> Callable[[], Any]:
  """One step of every candidate, as `train_candidates` takes it, compiled by `jit`."""
  step = jit(
    lambda candidates, batch: over_candidates(lambda one: training.step(one, batch), candidates)
  )
  return lambda: step(training.candidates, training.batch)
