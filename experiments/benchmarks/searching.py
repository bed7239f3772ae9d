"""Benchmarks of a search's update: its time apart from scoring masks, and its compilation."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.masked_resnet import Problem, problem
from experiments.benchmarks.measuring import Measurement, dtypes, timed
from experiments.common.settings import make_settings
from experiments.configs import cifar10_resnet20
from gatprune_jax.channels import make_constraints
from gatprune_jax.criteria import Evidence, classical_pruners, score_channels
from gatprune_jax.data import Split
from gatprune_jax.networks import CLASSIFICATION
from gatprune_jax.runtime import mesh
from gatprune_jax.search import PruningProblem, Scorer
from gatprune_jax.search.preparation import prepare
from gatprune_jax.search.update import compile_update

_UPDATES = 3  # measured updates, after a first one, which compiles
_CONFIRMATION = 16  # images of the confirmation split, on which one more mask is scored


def first_update() -> Iterator[Measurement]:
  """Compares the first update, which compiles, with a later one.

  Few images are used, because the number of images hardly changes the time of compilation.
  """
  for name in ("resnet20", "resnet56"):
    p = _prepared(name, "float32", num_images=16, calibration_images=16, samples=4)
    state, first = timed(lambda p=p: p.update(p.state))
    _, later = timed(lambda p=p, state=state: p.update(state))
    yield Measurement(f"first update of {name}", first, "a later one", later, later / first, "")


def agent_overhead() -> Iterator[Measurement]:
  """Compares updates with the same updates if all masks are known, on 512 and on 2,000 images."""
  for dtype in dtypes():
    yield _overhead(dtype, 256, 256)
    yield _overhead(dtype, 1500, 500)


def _overhead(dtype: str, num_images: int, calibration_images: int) -> Measurement:
  p = _prepared("resnet20", dtype, num_images, calibration_images, samples=32)
  copy = functools.partial(jax.tree.map, jnp.array)  # an update donates the memory of its state
  state = p.update(p.state)
  ours = theirs = 0.0
  for _ in range(_UPDATES):
    after, seconds = timed(functools.partial(p.update, copy(state)))
    ours += seconds
    # From the same state the same masks are sampled. They are in the replay now, so the update does
    # everything except scoring them. It still scores one mask on the confirmation split.
    knowing = copy(state.replace(replay=after.replay))
    again, seconds = timed(functools.partial(p.update, knowing))
    theirs += seconds
    assert int(again.replay.size) == int(after.replay.size)
    state = after
  ours, theirs = ours / _UPDATES, theirs / _UPDATES - timed(p.score_on_confirmation)[1]
  name = f"an update of resnet20, {num_images + calibration_images} images a mask, {dtype}"
  note = f"{theirs / ours:.1%} of it"
  return Measurement(name, ours, "without scoring", theirs, theirs / ours, note)


class _Prepared(NamedTuple):
  """A search before its first update."""

  state: Any
  update: Callable[[Any], Any]  # state -> the next state, once that is computed
  score_on_confirmation: Callable[[], Any]  # scores one mask, as an update does with its best


def _prepared(
  name: str, dtype: str, num_images: int, calibration_images: int, samples: int
) -> _Prepared:
  """Makes the search of `cifar10_resnet20` for a network by name, on random images."""
  settings = make_settings(cifar10_resnet20.get_config())
  config = dataclasses.replace(
    settings.search, samples=samples, calibration_images=calibration_images
  )
  p = problem(1, max(num_images, calibration_images), dtype, name)
  pruning = _pruning(p, num_images)
  scorer = Scorer(pruning, config)
  _, learner, inputs, state = prepare(pruning, config, scorer, 0)
  step = compile_update(config, learner, scorer)
  state, mask = mesh.replicate(state), np.asarray(state.incumbent.mask)[None]
  confirmation = functools.partial(scorer.on_confirmation, mask)
  return _Prepared(state, lambda state: jax.block_until_ready(step(state, inputs)[0]), confirmation)


def _pruning(p: Problem, num_images: int) -> PruningProblem:
  """Makes a pruning problem: half of the MACs, with L1 norms as the only saliency."""
  constraints = make_constraints(p.graph, {"macs": 0.5})
  few = jnp.asarray(p.x[:64]), jnp.asarray(p.y[:64])
  evidence = Evidence(p.graph, p.network, CLASSIFICATION, *few, jax.random.key(0))
  saliency = {"l1": score_channels("l1", evidence)}
  pruners = classical_pruners(constraints, saliency)
  y = np.arange(len(p.y), dtype=np.int32) % 10
  split = lambda number: Split(np.asarray(p.x[:number]), y[:number])
  return PruningProblem(
    p.network, CLASSIFICATION, constraints, Split(np.asarray(p.calibration), y),
    split(num_images), split(_CONFIRMATION), pruners, saliency,
  )  # fmt: skip
