"""Tests of pruning within a budget for latency: the table, the limits, and the measured times."""

import dataclasses
import json

import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.pruning import latency
from tests.channels.costs.latency_tables import table_of
from tests.experiments.mains import metrics
from tests.pruning.examples import FINETUNE, SEARCH, linen


def prune(budgets, **arguments):
  network, data, _ = linen()
  return gp.prune(
    network, data, budgets, search=SEARCH, finetune=FINETUNE, criteria=("l1",),
    progress=False, **arguments,
  )  # fmt: skip


@pytest.fixture
def abacus():
  """Returns a table of another device, on which a layer takes the product of its widths."""
  network, data, _ = linen()
  graph = gp.trace(network.eval_fn, network.variables, data.train.x[:1])
  return table_of(graph, lambda _, widths: float(np.prod(widths)), constant=1.0, batch=3)


@pytest.mark.long
def test_a_run_measures_a_table_and_keeps_it(tmp_path):
  run = lambda: prune({"latency": 1.0, "macs": 0.7}, workdir=tmp_path / "run")
  first = run()
  table = (tmp_path / "run" / "latency_table.json").read_bytes()
  result = json.loads((tmp_path / "run" / "result.json").read_text())
  assert set(result["resources"]) == {"latency", "macs"}
  for row in result["methods"]:
    (timing,) = row["latency"].values()  # at a batch of one
    assert row["latency"].keys() == {"1"}
    assert len(timing) == 4
    assert timing[0] > 0
  assert result["methods"][0]["latency"]["1"][2:] == [1.0, 0.0]  # the dense network, to itself
  for head in ("latency ratio", "ms, batch 1", "of dense, batch 1"):
    assert head in str(first)
  # A run that goes on has the same limits, and a finished one the same result.
  again = run()
  assert [row._asdict() for row in again.rows] == [row._asdict() for row in first.rows]
  assert (tmp_path / "run" / "latency_table.json").read_bytes() == table
  # What was measured on another device has no meaning for this run.
  content = json.loads(table)
  content["device"] = "phone"
  (tmp_path / "run" / "latency_table.json").write_text(json.dumps(content))
  with pytest.raises(gp.InputError, match="is of phone, but this device is"):
    run()


@pytest.mark.long
def test_three_limits_hold_and_what_does_not_bind_costs_nothing(abacus, tmp_path):
  deployment = gp.Deployment(3, abacus)
  limits = {"latency": 0.5, "activation_bytes": 1.0, "params": 0.6}
  pruned = prune(limits, deployment=deployment, workdir=tmp_path / "run")
  graph = pruned.graph
  dense = np.ones(graph.num_channels)
  for mask in pruned.masks.values():
    costs = gp.latency(graph, mask, abacus) / gp.latency(graph, dense, abacus)
    assert costs <= 0.5
    assert gp.params(graph, mask) <= 0.6 * gp.params(graph, dense)
  assert pruned.costs["latency"] <= 0.5
  assert pruned.rows[-1].latency.keys() == {"1", "3"}
  updates = [line for line in metrics(tmp_path / "run") if line["phase"] == "search"]
  names = sorted(limits)
  assert updates[-1]["multiplier"][names.index("activation_bytes")] == 0
  # Another table, or none, is another run.
  other = gp.Deployment(3, dataclasses.replace(abacus, constant=2.0))
  with pytest.raises(gp.InputError, match=r"deployment\.latency_table is \w+, here it is \w+"):
    prune(limits, deployment=other, workdir=tmp_path / "run")


def test_what_cannot_be_met_or_measured_is_refused(abacus, tmp_path):
  deployment = gp.Deployment(3, abacus)
  workdir = tmp_path / "run"
  for arguments, words in (
    (({"latency": 0.001},), "budget 0.001 for latency cannot be reached"),
    (
      ({"latency": "5k"},),
      "budget 5k for latency has the unknown unit 'k': choose from ns, us, ms",
    ),
    (({"latency": "0ms"},), "budget 0ms for latency is not positive"),
  ):
    with pytest.raises(gp.InputError, match=words):
      prune(*arguments, deployment=deployment, workdir=workdir)
  with pytest.raises(gp.InputError, match="budget 5k for latency has the unknown unit 'k'"):
    prune({"latency": "5k"}, workdir=workdir)  # before the layers are measured
  assert not workdir.exists()


@pytest.mark.long
def test_rounds_keep_to_the_latency_of_the_first_network(abacus, tmp_path):
  _, data, _ = linen()
  run = lambda budgets, **more: prune(budgets, rounds=2, workdir=tmp_path / "run", **more)
  deployment = gp.Deployment(3, abacus)
  outcome = run({"latency": 0.4}, deployment=deployment)
  share = lambda mask: gp.latency(outcome.graph, mask, abacus) / abacus.dense_seconds
  assert share(outcome.mask) == pytest.approx(outcome.costs["latency"])
  for row in outcome.rows[1:]:
    assert row.others["latency"] == pytest.approx(share(outcome.masks[row.method]))
    assert row.others["latency"] <= 0.4
  # The first round goes half of the way in the logarithm.
  first = json.loads((tmp_path / "run" / "round_1" / "result.json").read_text())
  assert first["resources"]["latency"]["limit"] == pytest.approx(0.4**0.5 * abacus.dense_seconds)
  # All networks are timed in turn with the first one, at both batches.
  assert outcome.rows[0].latency["3"][2:] == (1.0, 0.0)
  assert all(row.latency.keys() == {"1", "3"} for row in outcome.rows)
  assert str(run({"latency": 0.4}, deployment=deployment)) == str(outcome)
  # A network that was loaded has the shares of the network of the given table.
  outcome.save(tmp_path / "out")
  loaded = gp.load(tmp_path / "out" / "network", trainable=True)
  arguments = {"search": SEARCH, "finetune": FINETUNE, "criteria": ("l1",), "progress": False}
  further = gp.prune(loaded, data, {"latency": 0.3}, deployment=deployment, **arguments)
  assert 0 < further.costs["latency"] <= 0.3
  assert further.rows[0].others["latency"] == pytest.approx(outcome.costs["latency"])
  with pytest.raises(gp.InputError, match="for latency is a share, but this network was cut"):
    gp.prune(loaded, data, {"latency": 0.3}, **arguments)


@pytest.mark.long
def test_rounds_share_the_table_that_is_measured(abacus, tmp_path, monkeypatch):
  measured = []

  def measure(graph, fn, variables, x, batch):
    measured.append(graph.num_channels)
    return dataclasses.replace(abacus, batch=batch, device=latency.device_name())

  monkeypatch.setattr(latency, "measure_latency", measure)
  run = lambda: prune({"latency": 0.5}, rounds=2, workdir=tmp_path / "run")
  outcome = run()
  assert len(measured) == 1
  assert outcome.costs["latency"] <= 0.5
  assert str(run()) == str(outcome)
  assert len(measured) == 1
  # A limit in seconds needs no first network: a loaded network is measured like any other.
  outcome.save(tmp_path / "out")
  loaded = gp.load(tmp_path / "out" / "network", trainable=True)
  limit = 0.4 * abacus.dense_seconds
  further = gp.prune(
    loaded, linen()[1], {"latency": f"{1e6 * limit:.9f}us"}, search=SEARCH, finetune=FINETUNE,
    criteria=("l1",), progress=False,
  )  # fmt: skip
  assert len(measured) == 2
  assert gp.latency(further.graph, further.mask, dataclasses.replace(abacus, batch=1)) <= limit
  assert further.rows[0].others["latency"] == pytest.approx(outcome.costs["latency"])
