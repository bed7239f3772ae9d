"""Tests of networks at fixed widths: any mask that fits gives what it gives at dense widths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels.envelope import make_envelope
from tests.channels.laws import assert_same, random_mask
from tests.channels.random_networks import draw_case
from tests.channels.test_equivalence import network


def test_widths_by_hand():
  # There are four hidden channels of one kind. The masks keep two and three, so three are computed.
  fn = lambda v, x: jax.nn.relu(x @ v["in"]) @ v["out"]
  variables = {"in": np.eye(2, 4) + 1.0, "out": np.ones((4, 3))}
  x = np.ones((5, 2))
  graph = gp.trace(fn, variables, x)
  masks = np.array([[1, 0, 0, 1], [0, 1, 1, 1]], bool)
  envelope = make_envelope(graph, [fn], masks, variables, x)
  assert envelope.widths.tolist() == [3]
  assert envelope.holds(np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)).tolist() == [
    True, False, True,
  ]  # fmt: skip
  held = envelope.filled(masks[0])
  assert held.tolist() == [True, True, False, True]  # the first removed channel is the filler
  cut = envelope.cut(variables, held)
  np.testing.assert_array_equal(cut["in"], [[2, 1, 1], [1, 2, 1]])
  # Before masking, x W = (3, 3, 2, 2); the mask keeps channels 0 and 3.
  out = envelope.masked(fn)(cut, masks[0], held, x)
  np.testing.assert_array_equal(out, np.full((5, 3), 5))


def assert_envelope_law(fns, variables, x, seed):
  """Checks that one program per function serves masks that fit, in value and gradient."""
  with jax.enable_x64(True):
    variables, x = jax.tree.map(np.float64, (variables, x))
    graph, rng = gp.trace(fns[0], variables, x), np.random.default_rng(seed)
    wide = np.stack([random_mask(graph, rng) for _ in range(2)])
    envelope = make_envelope(graph, fns, wide, variables, x)
    # Masks that fit are subsets of others, with other channels of the same kinds in between.
    masks = [wide[0], wide[1]]
    for _ in range(2):
      mask = np.zeros(graph.num_channels, bool)
      for kind, width in enumerate(envelope.widths):
        members = np.flatnonzero(envelope.kind == kind)
        mask[rng.permutation(members)[: rng.integers(0, width + 1)]] = True
      for group in graph.groups:
        if not mask[group.channels].any():
          mask[group.channels] = wide[0][group.channels]
      masks.append(mask)
    for fn in fns:
      both = jax.jit(functools.partial(_values_and_gradients, graph, envelope, fn))
      for mask in masks:
        assert envelope.holds(mask[None]).all()
        (one, expected), (other, found) = both(variables, jnp.asarray(mask), x)
        assert_same(other, one)
        assert_same(found, expected)
      assert both._cache_size() == 1


def _values_and_gradients(graph, envelope, fn, variables, mask, x):
  """Returns value and gradient of the squared outputs, at dense and at the envelope's widths."""

  def narrow(variables):
    held = envelope.filled(mask)
    return _squares(envelope.masked(fn)(envelope.cut(variables, held), mask, held, x))

  dense = lambda variables: _squares(gp.masked(graph, fn)(variables, mask, x))
  results = []
  for of in (dense, narrow):
    value, gradient = jax.value_and_grad(of)(variables)
    results.append((value, jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])))
  return results


def _squares(outputs):
  # Of what a train function returns, only the outputs: statistics are cut to the computed channels.
  outputs = outputs[0] if isinstance(outputs, tuple) else outputs
  return sum((leaf**2).sum() for leaf in jax.tree.leaves(outputs))


@pytest.mark.parametrize("name", ["vgg", "mobile", "dense", "normed"])
def test_networks_at_the_envelope_equal_masked_ones(name):
  eval_fn, train_fn, variables, x = network(name)
  assert_envelope_law([eval_fn, train_fn], variables, x, 0)


def test_resnets_at_the_envelope_equal_masked_ones(example):
  assert_envelope_law([example.eval_fn, example.train_fn], example.variables, example.x, 1)


@pytest.mark.parametrize(
  "seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 60))]
)
def test_random_networks_at_the_envelope_equal_masked_ones(seed):
  case = draw_case(seed)
  assert_envelope_law([case.eval_fn, case.train_fn], case.variables, case.x, seed)
