"""Extensions of every kind can be registered from outside the package and used in a search.

This is what the documentation's table "to add X, touch Y" promises.
"""

import inspect

import jax
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.agent import PolicyConfig
from gatprune_jax.channels.costs import RESOURCES, Deployment
from gatprune_jax.data import DataConfig, load_dataset
from gatprune_jax.models import model
from gatprune_jax.search import SEARCHES, Scorer
from tests.additions import (
  competitor,
  criterion,
  dataset,
  encoder,
  learner,
  network,
  resource,
  reward,
  schedule,
)

ADDITIONS = (
  competitor, criterion, dataset, encoder, learner, network, resource, reward, schedule,
)  # fmt: skip


@pytest.fixture
def added(monkeypatch):
  for addition in ADDITIONS:
    addition.add(monkeypatch.setitem)


@pytest.mark.parametrize("addition", ADDITIONS, ids=lambda module: module.__name__.split(".")[-1])
def test_it_takes_at_most_forty_lines(addition):
  assert len(inspect.getsource(addition).splitlines()) <= 40


def search_config():
  return gp.SearchConfig(
    updates=2, samples=4, schedule=schedule.NAME, learner=learner.NAME,
    self_competition=reward.NAME, policy=PolicyConfig(encoder.NAME, layers=1, heads=1),
    calibration_images=16, refinement=4, elites=3, shortlist=2, chunk=1,
    adaptation=gp.AdaptationConfig(steps=1, batch_size=8),
  )  # fmt: skip


REFUSED = {
  "schedule": (lambda: gp.SearchConfig(schedule=schedule.NAME), "schedule 'halves' is unknown"),
  "learner": (lambda: gp.SearchConfig(learner=learner.NAME), "learner 'reinforce' is unknown"),
  "reward": (lambda: gp.SearchConfig(self_competition=reward.NAME), "'above median' is unknown"),
  "encoder": (lambda: PolicyConfig(encoder.NAME), "policy encoder 'sums' is unknown"),
  "data set": (lambda: load_dataset(DataConfig(dataset.NAME)), "dataset 'sides' is unknown"),
  "network": (lambda: model(network.NAME, 2), "model 'plain' is unknown"),
}


@pytest.mark.parametrize(("use", "sentence"), REFUSED.values(), ids=REFUSED)
def test_without_being_added_it_is_unknown(use, sentence):
  with pytest.raises(gp.InputError, match=sentence):
    use()


def test_a_search_with_one_of_everything(added):
  data = load_dataset(DataConfig(dataset.NAME), 0)
  module = model(network.NAME, data.num_classes)
  variables = jax.jit(module.init)(jax.random.key(0), data.train.x[:1])
  limits = {"macs": 0.6, resource.NAME: 0.8}
  pruned = gp.prune(
    gp.from_linen(module, variables), data, limits, search=search_config(),
    criteria=("l1", criterion.NAME), finetune=gp.Recipe(epochs=1, batch_size=16), progress=False,
  )  # fmt: skip
  assert pruned.costs.keys() == limits.keys()
  for name, limit in limits.items():
    assert pruned.costs[name] <= limit
  assert any(criterion.NAME in row.method for row in pruned.rows)
  graph = gp.trace(lambda v, x: module.apply(v, x), variables, data.train.x[:1])
  kept = RESOURCES[resource.NAME](graph, Deployment()).cost(pruned.mask)
  assert pruned.costs[resource.NAME] == pytest.approx(
    kept / RESOURCES[resource.NAME](graph, Deployment()).cost(np.ones(graph.num_channels))
  )
  constraints = gp.make_constraints(graph, limits)
  problem = gp.make_problem(
    gp.from_linen(module, variables), constraints, data, config=search_config(), criteria=("l1",)
  )
  result = SEARCHES[competitor.NAME](problem, Scorer(problem, search_config()), 9, seed=0)
  assert result.evaluations == 9
  assert all(constraints.feasible(mask) for mask in result.masks)
