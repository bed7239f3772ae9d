"""From settings to what all methods get: data, network, channels, budgets, and the task."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import dense
from experiments.settings import Settings
import gatprune_jax as gp
from gatprune_jax import InputError
from gatprune_jax.channels import Constraints, make_constraints
from gatprune_jax.criteria import Evidence, classical_pruners, score_channels
from gatprune_jax.data import Dataset, Split
from gatprune_jax.evaluation import make_lesson
from gatprune_jax.processes import from_first
from gatprune_jax.search import Task, hold_out_arena

_EVIDENCE_IMAGES = 4096  # training images that criteria look at; bounds the time of "taylor"


class Prepared(NamedTuple):
  """All that is known before there are weights."""

  data: Dataset
  network: dense.Network
  constraints: Constraints  # the graph of its channels, budgets and floors
  reward: Split  # what scores masks
  arena: Split


def prepare(settings: Settings, limits: Mapping[str, float]) -> Prepared:
  """Loads data, makes the network and finds its channels; writes nothing.

  Args:
    settings: of the experiment.
    limits: {resource: largest share of the dense network's cost}.

  Raises:
    InputError: where the settings do not fit the data, or the budgets cannot be reached.
  """
  data = dense.load_data(settings)
  network = dense.make_network(settings, data)
  graph = gp.trace(network.eval_fn, network.shapes, jnp.asarray(data.train.x[:1]))
  constraints = make_constraints(
    graph, limits, settings.search.keep_floor, settings.search.allow_empty
  )
  if (num := settings.search.calibration_images) > len(data.train.y):
    raise InputError(
      f"search calibration_images is {num}: there are {len(data.train.y)} training images"
    )
  make_lesson(settings.search.adaptation, data.train)  # refuses one that does not fit
  splits = hold_out_arena(settings.search, data.reward, settings.seed)
  return Prepared(data, network, constraints, *splits)


def make_task(settings: Settings, prepared: Prepared, variables: Any) -> Task:
  """Scores the channels by every criterion and brings every classical pruner to the budgets."""
  data, network, constraints, reward, arena = prepared
  x, y = data.train.x[:_EVIDENCE_IMAGES], data.train.y[:_EVIDENCE_IMAGES]
  evidence = Evidence(
    constraints.graph, variables, network.eval_fn, jnp.asarray(x), jnp.asarray(y),
    jax.random.key(settings.seed),
  )  # fmt: skip
  scores = from_first(lambda: {name: score_channels(name, evidence) for name in settings.criteria})
  pruners = classical_pruners(constraints, scores)
  saliency = {name: values for name, values in scores.items() if name != "random"}
  return Task(
    constraints, network.eval_fn, network.train_fn, variables, data.train, reward, arena,
    pruners, saliency,
  )  # fmt: skip
