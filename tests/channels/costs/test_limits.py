"""Tests of limits as people write them."""

import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels.costs import read_limit


@pytest.mark.parametrize(
  ("limit", "unit", "dense", "share"),
  [
    (0.3, "MACs", 1e9, 0.3),
    (1, "MACs", 1e9, 1.0),
    (np.float32(0.5), "bytes", 7, 0.5),
    ("0.25", "parameters", 10, 0.25),
    ("20M", "MACs", 80e6, 0.25),
    ("300 k", "MACs", 1.2e6, 0.25),
    ("250MACs", "MACs", 1000, 0.25),
    ("1e3 parameters", "parameters", 4000, 0.25),
    ("500KB", "bytes", 2e6, 0.25),
    ("2kib", "bytes", 8192, 0.25),
    ("3B", "bytes", 12, 0.25),
    ("5ms", "seconds", 0.02, 0.25),
    ("2.5 us", "seconds", 1e-5, 0.25),
    ("3G", "MACs", 1e9, 1.0),  # more than the dense network has
  ],
)
def test_a_limit_is_a_share_or_has_a_unit(limit, unit, dense, share):
  assert read_limit("cost", limit, unit, dense) == pytest.approx(share, rel=1e-6)


@pytest.mark.parametrize(
  ("limit", "unit", "words"),
  [
    ("20", "MACs", "budget 20 for cost is not a share .* or add a unit, one of k, M, G, MACs"),
    (20, "bytes", "budget 20 for cost is not a share .* one of B, KB, MB, GB, KiB, MiB, GiB"),
    ("5ms", "MACs", "budget 5ms for cost has the unknown unit 'ms': choose from k, M, G, MACs"),
    ("5k", "seconds", "budget 5k for cost has the unknown unit 'k': choose from ns, us, ms, s"),
    ("-5ms", "seconds", "budget -5ms for cost is not positive: give a cost above 0"),
    ("0KB", "bytes", "budget 0KB for cost is not positive"),
    ("half", "bytes", "budget half for cost is not a share"),
    ("", "bytes", "budget  for cost is not a share"),
    ("1 2", "bytes", "budget 1 2 for cost is not a share"),
    (True, "bytes", "budget True for cost is not a share"),
    (None, "bytes", "budget None for cost is not a share"),
    ([0.5], "bytes", r"budget \[0.5\] for cost is not a share"),
    (float("nan"), "bytes", "budget nan for cost is not a share"),
    (0, "bytes", "budget 0 for cost is not a share"),
  ],
)
def test_other_limits_are_refused(limit, unit, words):
  with pytest.raises(gp.InputError, match=words):
    read_limit("cost", limit, unit, 100.0)


def test_an_absolute_limit_is_met_exactly(example_b):
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  mask = np.random.default_rng(0).random(graph.num_channels) < 0.7
  for name, cost in (("macs", gp.macs), ("weight_bytes", gp.weight_bytes)):
    exact = int(cost(graph, mask))
    unit = "MACs" if name == "macs" else "B"
    allowed = gp.make_constraints(graph, {name: f"{exact}{unit}"}, 0.0)
    assert allowed.feasible(mask)
    told = allowed.statement(mask)[name]
    assert (told["pruned"], told["limit"]) == (exact, pytest.approx(exact, rel=1e-12))
    assert not gp.make_constraints(graph, {name: f"{exact - 1}{unit}"}, 0.0).feasible(mask)
