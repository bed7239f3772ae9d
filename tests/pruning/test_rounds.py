"""Tests of pruning in rounds: budgets, costs and masks are those of the first network."""

import jax
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.pruning.rounds import budgets_of_rounds
from tests.pruning.examples import EXAMPLES, FINETUNE, SEARCH

SETTINGS = {"search": SEARCH, "finetune": FINETUNE, "criteria": ("l1",), "progress": False}


def test_rounds_are_equal_steps_of_log_cost():
  # From 1 to 1/8 in three steps of a half; from 1/2 to 1/8, a ratio of 1/4, in two.
  assert budgets_of_rounds({"macs": 1}, {"macs": 0.125}, 3) == [
    {"macs": pytest.approx(0.5)}, {"macs": pytest.approx(0.25)}, {"macs": 0.125},
  ]  # fmt: skip
  assert budgets_of_rounds({"macs": 0.5, "params": 0.3}, {"macs": 0.125, "params": 1.0}, 2) == [
    {"macs": pytest.approx(0.25), "params": pytest.approx(0.3)}, {"macs": 0.125, "params": 1.0},
  ]  # fmt: skip
  assert budgets_of_rounds({"macs": 1}, {"macs": 0.3}, 1) == [{"macs": 0.3}]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
  """Returns a network, its data, the outcome of two rounds to 0.3 of the MACs, and the workdir."""
  network, data, _ = EXAMPLES["nnx"]()
  workdir = tmp_path_factory.mktemp("rounds") / "run"
  outcome = gp.prune(network, data, limit(network, data), rounds=2, workdir=workdir, **SETTINGS)
  return network, data, outcome, workdir


def limit(network, data):
  """Returns a budget of 0.3 of a network's MACs, as a number of them."""
  graph = gp.trace(network.eval_fn, network.variables, data.train.x[:1])
  return {"macs": f"{0.3 * gp.macs(graph, np.ones(graph.num_channels))} MACs"}


def test_budgets_and_costs_are_of_the_first_network(pruned):
  network, data, outcome, _ = pruned
  graph = gp.trace(network.eval_fn, network.variables, data.train.x[:1])
  everything = np.ones(graph.num_channels)
  share = gp.macs(graph, outcome.mask) / gp.macs(graph, everything)
  assert outcome.costs["macs"] == pytest.approx(share)
  assert share <= 0.3
  assert outcome.rows[-1].macs_ratio == pytest.approx(share)
  assert outcome.rows[-1].macs == gp.macs(graph, outcome.mask)
  assert outcome.rows[0].macs_ratio == 1
  assert all(row.macs_ratio <= 0.3 for row in outcome.rows[1:])
  for name, mask in outcome.masks.items():
    row = next(row for row in outcome.rows if row.method == name)
    assert row.macs == gp.macs(graph, mask)


def test_the_network_has_what_the_mask_leaves(pruned):
  network, data, outcome, _ = pruned
  graph = gp.trace(network.eval_fn, network.variables, data.train.x[:1])
  cut = gp.compact(graph, network.eval_fn, network.variables, outcome.mask)
  shapes = lambda tree: jax.tree.map(np.shape, tree)
  assert shapes(outcome.network.variables) == shapes(cut.variables)
  small, x = outcome.network, data.test.x
  outcome.module.eval()
  np.testing.assert_allclose(outcome.module(x), small.apply(small.variables, x), atol=1e-5)


def test_each_round_goes_on_from_the_one_before(pruned):
  _, data, outcome, workdir = pruned
  assert sorted(path.name for path in workdir.iterdir()) == ["round_1", "round_2"]
  network = pruned[0]
  again = gp.prune(network, data, limit(network, data), rounds=2, workdir=workdir, **SETTINGS)
  np.testing.assert_array_equal(again.mask, outcome.mask)
  assert again.search.evaluations == outcome.search.evaluations
  assert str(again) == str(outcome)


@pytest.mark.long
def test_a_loaded_network_is_pruned_further_to_shares_of_the_first(pruned, tmp_path):
  network, data, outcome, _ = pruned
  outcome.save(tmp_path / "out")
  loaded = gp.load(tmp_path / "out" / "network", trainable=True)
  with pytest.raises(gp.InputError, match="for macs cannot be reached"):
    gp.prune(loaded, data, {"macs": 1e-4}, **SETTINGS)
  further = gp.prune(loaded, data, {"macs": 0.2}, **SETTINGS)
  graph = gp.trace(network.eval_fn, network.variables, data.train.x[:1])
  whole = gp.macs(graph, np.ones(graph.num_channels))
  assert 0 < further.costs["macs"] <= 0.2
  assert further.costs["macs"] == further.rows[-1].macs / whole
  assert further.rows[0].macs_ratio == pytest.approx(outcome.costs["macs"])


def test_rounds_that_cannot_be_are_refused():
  network, data, _ = EXAMPLES["linen"]()
  for rounds in (0, 1.5, True):
    with pytest.raises(gp.InputError, match=f"rounds is {rounds}: it must be a whole number"):
      gp.prune(network, data, {"macs": 0.5}, rounds=rounds)
  with pytest.raises(gp.InputError, match=r"rounds is 2 and search\.allow_empty True"):
    gp.prune(network, data, {"macs": 0.5}, rounds=2, search=gp.SearchConfig(allow_empty=True))
  with pytest.raises(gp.InputError, match="cannot be reached"):
    gp.prune(network, data, {"macs": 1e-3}, rounds=3)
  eight = gp.Deployment(batch=8)
  with pytest.raises(gp.InputError, match="the cost is known for one example only"):
    gp.prune(network, data, {"activation_bytes": 0.9}, rounds=2, deployment=eight)
