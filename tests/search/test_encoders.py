"""Tests of encoders in a search: jraph's layer gives the same update as the package's layer."""

import dataclasses

import jax
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.agent import PolicyConfig
from gatprune_jax.search import Scorer
from gatprune_jax.search.preparation import prepare
from gatprune_jax.search.update import compile_update
from tests.search.test_search import CONFIG, make_problem


@pytest.mark.parametrize("edge_norms", [True, pytest.param(False, marks=pytest.mark.long)])
def test_an_update_by_jraph_is_the_same(two_layers, edge_norms):
  problem = make_problem(two_layers, {"macs": 0.3})
  states, metrics = {}, {}
  for name in ("gat", "jraph"):
    config = dataclasses.replace(
      CONFIG, policy=PolicyConfig(name, layers=1, heads=2, head_features=4, edge_norms=edge_norms)
    )
    scorer = Scorer(problem, config)
    prepared = prepare(problem, config, scorer, 0)
    # Noise moves the head away from its initial zeros, because zeros would hide the attention.
    rng = np.random.default_rng(0)
    moved = jax.tree.map(
      lambda leaf, rng=rng: leaf + 0.3 * rng.standard_normal(leaf.shape).astype(np.float32),
      prepared.state.learner.params,
    )
    state = prepared.state.replace(learner=prepared.state.learner.replace(params=moved))
    update = compile_update(config, prepared.learner, scorer)
    states[name], metrics[name] = jax.device_get(update(state, prepared.inputs))
  assert metrics["gat"]["policy_steps"] > 0
  np.testing.assert_array_equal(states["gat"].replay.masks, states["jraph"].replay.masks)
  for ours, theirs in zip(
    jax.tree.leaves((states["gat"], metrics["gat"])),
    jax.tree.leaves((states["jraph"], metrics["jraph"])),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_an_unknown_encoder_is_refused():
  with pytest.raises(gp.InputError, match="policy encoder 'gcn' is unknown: choose from gat,"):
    PolicyConfig("gcn")
