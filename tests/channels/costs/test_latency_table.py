"""Tests of the file of a latency table, and of tables that do not fit."""

import json

import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax import channels
from tests.channels.costs.latency_tables import random_table


@pytest.fixture
def graph(example_b):
  return gp.trace(example_b.eval_fn, example_b.variables, example_b.x[:1])


@pytest.fixture
def path(graph, tmp_path):
  gp.write_latency_table(tmp_path / "table.json", random_table(graph, batch=4, block=2))
  return tmp_path / "table.json"


def test_what_is_written_is_read(graph, path):
  written, read = random_table(graph, batch=4, block=2), gp.read_latency_table(path)
  for name in ("device", "threads", "batch", "block", "date", "versions", "constant", "factor"):
    assert getattr(read, name) == getattr(written, name)
  assert read.layers == written.layers
  for one, other in zip(read.shapes, written.shapes, strict=True):
    assert (one.what, one.widths) == (other.what, other.widths)
    np.testing.assert_array_equal(one.seconds, other.seconds)
  assert read.digest() == written.digest()
  assert random_table(graph, 1).digest() != written.digest()
  mask = np.arange(graph.num_channels) % 3 > 0
  assert gp.latency(graph, mask, read) == gp.latency(graph, mask, written)
  # A deployment takes the path of a file as well.
  deployment = gp.Deployment(4, str(path))
  constraints = gp.make_constraints(graph, {"latency": 0.9}, 0.0, deployment=deployment)
  assert constraints.budgets.resources[0].cost(mask) == gp.latency(graph, mask, written)


def drop(content, name):
  del content[name]


BAD = {
  "version": (lambda c: c.update(version=9), "has version 9 of the format: only version 1"),
  "format": (lambda c: c.update(format="?"), 'is no latency table: its "format" must be'),
  "no layers": (lambda c: drop(c, "layers"), "has no 'layers': add it"),
  "no batch": (lambda c: drop(c, "batch"), "has no 'batch': add it"),
  "half a batch": (lambda c: c.update(batch=0.5), "batch is 0.5: it must be a whole number"),
  "no block": (lambda c: c.update(block=0), "block is 0: it must be a whole number, at least 1"),
  "a hole": (
    lambda c: c["shapes"][1]["seconds"][0].pop(),
    "shape 1 has a hole: where 2 times belong, one for each width, it has 1",
  ),
  "null": (
    lambda c: c["shapes"][0]["seconds"].__setitem__(1, None),
    "shape 0 has a hole: it has None where a time belongs",
  ),
  "a negative time": (
    lambda c: c["shapes"][0]["seconds"].__setitem__(1, -2.0),
    "shape 0 has the time -2.0: times must be finite and not negative",
  ),
  "not a number": (
    lambda c: c["shapes"][0]["seconds"].__setitem__(1, float("nan")),
    "shape 0 has the time nan: times must be finite and not negative",
  ),
  "infinite": (lambda c: c.update(constant=float("inf")), "constant has the time inf: times must"),
  "no growth": (
    lambda c: c["shapes"][0]["widths"][0].reverse(),
    "they must be positive and grow",
  ),
  "no such shape": (
    lambda c: c["layers"][0].update(shape=99),
    "layer params/stem/kernel has shape 99, but there are",
  ),
  "no list": (lambda c: c.update(layers=7), "has a value of the wrong type"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_damaged_table_is_refused(case, path):
  damage, words = BAD[case]
  content = json.loads(path.read_text())
  damage(content)
  path.write_text(json.dumps(content))
  with pytest.raises(gp.InputError) as error:
    gp.read_latency_table(path)
  assert words in str(error.value)
  assert "\n" not in str(error.value)


def test_what_is_no_table_is_refused(tmp_path):
  with pytest.raises(gp.InputError, match="cannot be read: No such file"):
    gp.Deployment(1, tmp_path / "missing.json")
  (tmp_path / "text").write_text("no table")
  with pytest.raises(gp.InputError, match="is no JSON file"):
    gp.Deployment(1, tmp_path / "text")
  with pytest.raises(gp.InputError, match="latency_table is of type dict: give the path"):
    gp.Deployment(1, {})


def test_a_table_of_another_batch_or_network_is_refused(graph, example, two_layers, path):
  with pytest.raises(gp.InputError, match="is for a batch of 4, but the deployment's is 1"):
    gp.Deployment(1, path)
  fewer = gp.trace(two_layers.eval_fn, two_layers.variables, two_layers.x[:1])
  with pytest.raises(gp.InputError, match=r"with \d+ layers that can lose channels, but this .* 3"):
    gp.make_constraints(fewer, {"latency": 0.5}, deployment=gp.Deployment(4, path))
  narrow = random_table(graph, batch=4)
  narrow.shapes[0].__dict__["widths"] = ((1, 2, 3),)
  with pytest.raises(gp.InputError, match=r"it has the layer params/stem/kernel \(conv, 3\) where"):
    gp.latency(graph, np.ones(graph.num_channels), narrow)


def test_a_table_holds_for_a_network_that_was_cut_from_its_own(graph, example_b, path):
  # In blocks of two, every cut ends on widths that cost what they are; see `Interpolated`.
  table = gp.read_latency_table(path)
  everything = np.ones(graph.num_channels, bool)
  assert table.dense_seconds == gp.latency(graph, everything, table)
  rng, mask = np.random.default_rng(0), everything.copy()
  for group in graph.groups:
    mask[rng.choice(group.channels, 2 * ((len(group.channels) - 1) // 4), replace=False)] = False
  assert 0.2 < mask.mean() < 0.9
  small = gp.compact(graph, example_b.eval_fn, example_b.variables, mask)
  cut = gp.trace(small.apply, small.variables, example_b.x[:1])
  left = rng.random(cut.num_channels) < 0.7
  both = channels.cut(small.origin, cut, left).mask(graph)
  assert gp.latency(cut, left, table) == pytest.approx(gp.latency(graph, both, table), rel=1e-12)


def test_a_budget_for_latency_needs_a_table(graph):
  with pytest.raises(gp.InputError, match="a budget for latency needs a table of what layers cost"):
    gp.make_constraints(graph, {"latency": 0.5})


def test_a_network_that_was_cut_needs_the_first_latency_for_shares(graph, path):
  with pytest.raises(gp.InputError, match="latency: this network was cut from another one"):
    gp.make_constraints(
      graph, {"latency": 0.5}, deployment=gp.Deployment(4, path), first={"macs": 1e6}
    )
