"""How fast masked candidates with weights of their own are trained."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.masked_resnet import Problem, problem, training
from experiments.benchmarks.measuring import Row, alternating
from experiments.benchmarks.peers import adapter
from gatprune_jax.evaluation import candidate_convolution, over_candidates

_CANDIDATES, _BATCH = 8, 64
_NAME = f"a step of {_CANDIDATES} candidates of resnet20, batch {_BATCH}"


def finetuning() -> list[Row]:
  """Against a jitted step for one candidate after the other, and against vmap with XLA's."""
  p = problem(_CANDIDATES, _BATCH)
  plain = training(p, None)
  one = jax.jit(plain.step)
  candidates = [
    jax.tree.map(lambda leaf, i=index: leaf[i], (plain.states, p.masks))
    for index in range(_CANDIDATES)
  ]
  vmapped = jax.jit(jax.vmap(plain.step, (0, None)))
  seconds = alternating(
    train_all(p),
    lambda: [one(candidate, plain.batch) for candidate in candidates],
    lambda: vmapped((plain.states, p.masks), plain.batch),
    repeats=3,
  )
  note = f"{_CANDIDATES * _BATCH / seconds[0]:.0f} images/s"
  references = ("jitted step in a Python loop", "vmap, XLA's convolution")
  return [
    Row(_NAME, seconds[0], reference, other, other / seconds[0], note)
    for reference, other in zip(references, seconds[1:], strict=True)
  ]


def finetuning_against_torch() -> list[Row]:
  """Against a loop over candidates in PyTorch, in each of its layouts.

  Raises:
    Skipped: without PyTorch.
  """
  torch_network = adapter("torch")
  p = problem(_CANDIDATES, _BATCH)
  layouts = list(torch_network.FORMATS)
  loops = [torch_network.trainer(_CANDIDATES, np.asarray(p.x), layout) for layout in layouts]
  ours, *theirs = alternating(train_all(p), *loops, repeats=3)
  return [
    Row(_NAME, ours, "PyTorch loop", seconds, seconds / ours, layout)
    for layout, seconds in zip(layouts, theirs, strict=True)
  ]


def train_all(p: Problem) -> Callable[[], Any]:
  """One step for every mask of a problem, as `train_candidates` takes it."""
  t = training(p, candidate_convolution())
  step = jax.jit(
    lambda candidates, batch: over_candidates(lambda one: t.step(one, batch), candidates)
  )
  return lambda: step((t.states, p.masks), t.batch)
