"""What a search's update takes beside the scoring of its masks, and how long it compiles."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.masked_resnet import Problem, problem
from experiments.benchmarks.measuring import Row, timed
from experiments.configs import cifar10_resnet20
from experiments.settings import make_settings
from gatprune_jax.channels import keep_floors, make_budgets
from gatprune_jax.criteria import Evidence, classical_pruners, score_channels
from gatprune_jax.data import Split
from gatprune_jax.search import Scorer, Task
from gatprune_jax.search.loop import compile_update, prepare

_UPDATES = 3  # after the first, which compiles


def compilation() -> list[Row]:
  """The first update against a later one, on few images: their number is not what compiles."""
  rows = []
  for name in ("resnet20", "resnet56"):
    p = _prepared(name, num_images=16, calibration_images=16, samples=4)
    state, first = timed(lambda p=p: p.update(p.state))
    _, later = timed(lambda p=p, state=state: p.update(state))
    rows.append(Row(f"first update of {name}", first, "a later one", later, later / first, ""))
  return rows


def agent_overhead() -> list[Row]:
  """Updates against the same updates with every mask known already, on few and on 2,000 images."""
  return [_overhead(256, 256), _overhead(1500, 500)]


def _overhead(num_images: int, calibration_images: int) -> Row:
  p = _prepared("resnet20", num_images, calibration_images, samples=32)
  copy = functools.partial(jax.tree.map, jnp.array)  # an update takes the memory of its state
  state = p.update(p.state)
  ours = theirs = 0.0
  for _ in range(_UPDATES):
    after, seconds = timed(functools.partial(p.update, copy(state)))
    ours += seconds
    # The same masks are sampled, and found in the replay: all is done but scoring, of which the
    # arena's one mask is left.
    knowing = copy(state.replace(replay=after.replay))
    again, seconds = timed(functools.partial(p.update, knowing))
    theirs += seconds
    assert int(again.replay.size) == int(after.replay.size)
    state = after
  name = f"an update of resnet20, {num_images + calibration_images} images a mask"
  note = f"{theirs / ours:.1%} of it"
  return Row(name, ours / _UPDATES, "without scoring", theirs / _UPDATES, theirs / ours, note)


class _Prepared(NamedTuple):
  """A search before its first update."""

  state: Any
  update: Callable[[Any], Any]  # state -> the next one, waited for


def _prepared(name: str, num_images: int, calibration_images: int, samples: int) -> _Prepared:
  """The search of the CIFAR config, on noise."""
  settings = make_settings(cifar10_resnet20.get_config())
  config = dataclasses.replace(
    settings.search, samples=samples, calibration_images=calibration_images
  )
  p = problem(1, max(num_images, calibration_images), name)
  task = _task(p, num_images)
  scorer = Scorer(task, config)
  policy, held, state = prepare(task, config, scorer, 0)
  step = compile_update(scorer.config, policy, scorer.score_fn)
  state = jax.device_put(state, jax.devices()[0])
  return _Prepared(state, lambda state: jax.block_until_ready(step(state, held)[0]))


def _task(p: Problem, num_images: int) -> Task:
  """Half of the MACs, from one classical order."""
  floors = keep_floors(p.graph, 0.05)
  budgets = make_budgets(p.graph, {"macs": 0.5}, floors)
  few = jnp.asarray(p.x[:64]), jnp.asarray(p.y[:64])
  evidence = Evidence(p.graph, p.variables, p.eval_fn, *few, jax.random.key(0))
  saliency = {"l1": score_channels("l1", evidence)}
  pruners = classical_pruners(p.graph, budgets, floors, saliency)
  y = np.arange(len(p.y), dtype=np.int32) % 10
  split = lambda number: Split(np.asarray(p.x[:number]), y[:number])
  return Task(
    p.graph, p.eval_fn, p.train_fn, p.variables, Split(np.asarray(p.calibration), y),
    split(num_images), split(16), budgets, floors, pruners, saliency,
  )  # fmt: skip
