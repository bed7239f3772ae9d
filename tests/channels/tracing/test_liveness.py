"""Tests of dead code, which a function computes and does not return."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from tests.channels.laws import assert_costs, assert_law, random_mask
from tests.conftest import perturbed

X = np.random.default_rng(0).standard_normal((4, 6, 6, 3)).astype(np.float32)


class Net(nn.Module):
  """Two layers, beside which `extra` computes something of what the first one returns."""

  extra: str

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Conv(5, (3, 3), name="stem")(x))
    pooled, told = x.mean((1, 2)), ()
    if self.extra == "sown statistics":
      self.sow("intermediates", "mean", x.mean())
    elif self.extra == "sorted head":
      told = nn.Dense(2, name="auxiliary")(jnp.sort(pooled, axis=-1))
    elif self.extra == "plain head":
      told = nn.Dense(2, name="auxiliary")(pooled)
    elif self.extra == "print":
      jax.debug.print("{}", jnp.linalg.norm(x))
    elif self.extra == "gradient":
      told = jax.grad(lambda p: jnp.sort(p, axis=-1).sum())(pooled)
    x = nn.relu(nn.Conv(4, (3, 3), name="body")(x))
    out = nn.Dense(3, name="head")(x.mean((1, 2)))
    return (out, told) if train else out


EXTRAS = ["sown statistics", "sorted head", "plain head", "print", "gradient"]


@pytest.mark.parametrize("in_call", [False, True])
@pytest.mark.parametrize("extra", EXTRAS)
def test_dead_code_freezes_nothing_and_costs_nothing(extra, in_call):
  net = Net(extra)
  variables = {"params": perturbed(jax.jit(net.init)(jax.random.key(0), X)["params"])}
  fn = jax.jit(net.apply) if in_call else net.apply
  graph = gp.trace(fn, variables, X)
  assert [len(group.channels) for group in graph.groups] == [5, 4]
  mask = random_mask(graph, np.random.default_rng(1))
  small = assert_law(graph, fn, variables, mask, X)
  if extra != "sorted head":  # whose parameters stay at their dense size
    assert_costs(graph, small, mask, X)
  assert gp.macs(graph, np.ones(9)) == 36 * 27 * 5 + 36 * 45 * 4 + 4 * 3


def test_a_head_that_only_training_returns_is_cut_with_the_others():
  net = Net("plain head")
  variables = {"params": perturbed(jax.jit(net.init)(jax.random.key(0), X)["params"])}
  graph = gp.trace(net.apply, variables, X)
  mask = random_mask(graph, np.random.default_rng(1))
  train = lambda v, x: net.apply(v, x, train=True)
  small = assert_law(graph, train, variables, mask, X)
  assert small.variables["params"]["auxiliary"]["kernel"].shape == (mask[:5].sum(), 2)


def test_a_function_that_needs_what_was_dead_code_is_refused():
  net = Net("sorted head")
  variables = {"params": perturbed(jax.jit(net.init)(jax.random.key(0), X)["params"])}
  graph = gp.trace(net.apply, variables, X)
  with pytest.raises(gp.InputError, match="cannot be removed from this function as it can from"):
    gp.masked(graph, lambda v, x: net.apply(v, x, train=True))(variables, np.ones(9), X)
