"""What a search's update takes beside the scoring of its masks, and how long it compiles."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.masked_resnet import Problem, problem
from experiments.benchmarks.measuring import Row, dtypes, timed
from experiments.common.settings import make_settings
from experiments.configs import cifar10_resnet20
from gatprune_jax.channels import make_constraints
from gatprune_jax.criteria import Evidence, classical_pruners, score_channels
from gatprune_jax.data import Split
from gatprune_jax.networks import CLASSIFICATION
from gatprune_jax.runtime import compilation, mesh
from gatprune_jax.search import PruningProblem, Scorer
from gatprune_jax.search.loop import compile_update, prepare

_UPDATES = 3  # after the first, which compiles
_CONFIRMATION = 16  # images on which an update scores one more mask


def first_update() -> Iterator[Row]:
  """The first update against a later one, on few images: their number is not what compiles."""
  for name in ("resnet20", "resnet56"):
    p = _prepared(name, "float32", num_images=16, calibration_images=16, samples=4)
    state, first = timed(lambda p=p: p.update(p.state))
    _, later = timed(lambda p=p, state=state: p.update(state))
    yield Row(f"first update of {name}", first, "a later one", later, later / first, "")


def agent_overhead() -> Iterator[Row]:
  """Updates against the same updates with every mask known already, on few and on 2,000 images."""
  for dtype in dtypes():
    yield _overhead(dtype, 256, 256)
    yield _overhead(dtype, 1500, 500)


def _overhead(dtype: str, num_images: int, calibration_images: int) -> Row:
  p = _prepared("resnet20", dtype, num_images, calibration_images, samples=32)
  copy = functools.partial(jax.tree.map, jnp.array)  # an update takes the memory of its state
  state = p.update(p.state)
  ours = theirs = 0.0
  for _ in range(_UPDATES):
    after, seconds = timed(functools.partial(p.update, copy(state)))
    ours += seconds
    # The same masks are sampled, and found in the replay: all is done but scoring, of which only
    # the confirmation split's one mask is left.
    knowing = copy(state.replace(replay=after.replay))
    again, seconds = timed(functools.partial(p.update, knowing))
    theirs += seconds
    assert int(again.replay.size) == int(after.replay.size)
    state = after
  ours, theirs = ours / _UPDATES, theirs / _UPDATES - _seconds_in_a_row(p.score_on_confirmation)
  name = f"an update of resnet20, {num_images + calibration_images} images a mask, {dtype}"
  note = f"{theirs / ours:.1%} of it"
  return Row(name, ours, "without scoring", theirs, theirs / ours, note)


def _seconds_in_a_row(fn: Callable[[], Any], num: int = 10) -> float:
  """Of one call among several that do not wait for each other, as parts of one program do not."""
  jax.block_until_ready(fn())
  return timed(lambda: jax.block_until_ready([fn() for _ in range(num)]))[1] / num


class _Prepared(NamedTuple):
  """A search before its first update."""

  state: Any
  update: Callable[[Any], Any]  # state -> the next one, waited for
  score_on_confirmation: Callable[[], Any]  # what an update does with its best mask


def _prepared(
  name: str, dtype: str, num_images: int, calibration_images: int, samples: int
) -> _Prepared:
  """The search of the CIFAR config, on noise."""
  settings = make_settings(cifar10_resnet20.get_config())
  config = dataclasses.replace(
    settings.search, samples=samples, calibration_images=calibration_images
  )
  p = problem(1, max(num_images, calibration_images), dtype, name)
  pruning = _pruning(p, num_images)
  scorer = Scorer(pruning, config)
  _, learner, held, state = prepare(pruning, config, scorer, 0)
  step = compile_update(config, learner, scorer.evaluator)
  state = mesh.replicate(state)
  images, mask = scorer.images, jnp.array(state.incumbent.mask)
  confirmation = functools.partial(
    compilation.jit(scorer.evaluator.score, shared=True), images.weights, mask,
    images.confirmation_x, images.confirmation_y,
  )  # fmt: skip
  return _Prepared(state, lambda state: jax.block_until_ready(step(state, held)[0]), confirmation)


def _pruning(p: Problem, num_images: int) -> PruningProblem:
  """Half of the MACs, from one classical order."""
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
