"""Tests of networks of several frameworks: functions, trainable variables and statistics."""

import equinox as eqx
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.evaluation import recalibrate, running_momentum
from gatprune_jax.networks import Network, check_network, compact_network, masked_network
from tests.channels.laws import assert_same, random_mask
from tests.conftest import TwoLayers
from tests.pruning.examples import EquinoxNet, NnxNet, inputs

X, _ = inputs(num=12)
OVER_BATCH = {"in_axes": (0, None), "out_axes": (0, None), "axis_name": "batch"}


def linen():
  module = TwoLayers()
  return gp.from_linen(module, jax.jit(module.init)(jax.random.key(0), X)), X


def nnx_module():
  return gp.from_nnx(NnxNet(nnx.Rngs(0))), X


def equinox(mode, batches):
  """Returns module, state and inputs of a network whose statistics some batches have moved."""
  x = jnp.asarray(X.transpose(0, 3, 1, 2))
  model, state = eqx.nn.make_with_state(EquinoxNet)(jax.random.key(0), mode)
  for _ in range(batches):
    _, state = jax.vmap(model, **OVER_BATCH)(x, state)
  return model, state, x


def equinox_of(mode):
  model, state, x = equinox(mode, batches=3)
  return gp.from_equinox(model, state), x


MAKERS = {
  "linen": linen,
  "nnx": nnx_module,
  "equinox batch": lambda: equinox_of("batch"),
  "equinox ema": lambda: equinox_of("ema"),
}


@pytest.fixture(scope="module", params=MAKERS)
def given(request):
  return MAKERS[request.param]()


def test_recalibrated_statistics_make_evaluation_what_training_is(given):
  # The NNX network has dropout of rate 0.1 in train mode, so its outputs are not compared.
  network, x = given
  momentum = running_momentum(network, x)
  measured = [float(m) for m in momentum if m is not None]
  np.testing.assert_allclose(measured, 0.9, atol=1e-5)
  assert len(measured) in (2, 4)  # mean and variance of each norm
  new = recalibrate(network, momentum, network.variables, x[None])
  outputs, _ = network.forward_train(network.variables, x)
  if "dropout" not in str(jax.tree.structure(network.variables)):
    np.testing.assert_allclose(network.eval_fn(new, x), outputs, rtol=1e-3, atol=1e-3)


def test_masked_and_compact_networks_agree_in_both_modes(given):
  network, x = given
  graph = gp.trace(network.eval_fn, network.variables, x)
  mask = random_mask(graph, np.random.default_rng(1))
  masked, small = (make(graph, network, mask) for make in (masked_network, compact_network))
  evaluated = [n.eval_fn(v, x) for n, v in ((masked, network.variables), (small, small.variables))]
  assert_same(*evaluated)
  (here, _), (there, state) = (
    n.forward_train(v, x) for n, v in ((masked, network.variables), (small, small.variables))
  )
  assert_same(here, there)
  # The state that training returns has the shapes of the state that training was given.
  assert [leaf.shape for leaf in state] == [leaf.shape for leaf in small.split(small.variables)[1]]


def test_splitting_and_merging_are_inverse(given):
  network, _ = given
  params, state = network.split(network.variables)
  assert params
  assert state
  merged = network.merge(params, state)
  assert jax.tree.structure(merged) == jax.tree.structure(network.variables)
  for a, b in zip(*map(jax.tree.leaves, (merged, network.variables)), strict=True):
    assert a is b


@pytest.mark.parametrize("mode", ["batch", "ema"])
@pytest.mark.parametrize("batches", [1, 3])
def test_an_equinox_network_evaluates_as_equinox_does(mode, batches):
  # After one batch, the mode "batch" of Equinox divides its statistics by 1 - 0.9.
  model, state, x = equinox(mode, batches)
  network = gp.from_equinox(model, state)
  expected, _ = jax.vmap(eqx.nn.inference_mode(model), **OVER_BATCH)(x, state)
  np.testing.assert_allclose(network.eval_fn(network.variables, x), expected, atol=1e-6)
  module, own = network.in_own_form(network.variables)
  again, _ = jax.vmap(eqx.nn.inference_mode(module), **OVER_BATCH)(x, own)
  np.testing.assert_allclose(again, expected, atol=1e-6)


def test_both_modes_of_equinox_train_alike():
  networks = [equinox_of(mode)[0] for mode in ("batch", "ema")]
  x = equinox("batch", 0)[2]
  (one, _), (other, _) = (n.forward_train(n.variables, x) for n in networks)
  np.testing.assert_allclose(one, other, atol=1e-6)


def test_an_equinox_module_without_a_state():
  keys = jax.random.split(jax.random.key(0))
  layers = [
    eqx.nn.Linear(4, 8, key=keys[0]),
    eqx.nn.Lambda(jax.nn.relu),
    eqx.nn.Linear(8, 3, key=keys[1]),
  ]
  model = eqx.nn.Sequential(layers)
  network, x = gp.from_equinox(model), jnp.ones((5, 4))
  np.testing.assert_allclose(network.eval_fn(network.variables, x), jax.vmap(model)(x), rtol=1e-6)
  assert network.split(network.variables)[1] == ()
  check_network(network, x)


def test_an_nnx_network_draws_other_dropout_at_every_step():
  network, x = nnx_module()
  check_network(network, x)
  first, state = network.forward_train(network.variables, x)
  params, _ = network.split(network.variables)
  second, _ = network.forward_train(network.merge(params, state), x)
  again, _ = network.forward_train(network.variables, x)
  np.testing.assert_array_equal(first, again)
  assert (first != second).any()
  assert all(leaf.dtype != jax.random.key(0).dtype for leaf in jax.tree.leaves(network.variables))


def test_a_linen_module_with_another_name_for_its_mode():
  import flax.linen as nn

  class Net(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
      x = nn.Dense(4)(x.reshape(len(x), -1))
      return nn.Dense(2)(nn.BatchNorm(use_running_average=deterministic)(x))

  module = Net()
  variables = module.init(jax.random.key(0), X, deterministic=True)
  network = gp.from_linen(module, variables, train="not deterministic")
  expected = module.apply(variables, X, deterministic=True)
  np.testing.assert_array_equal(network.eval_fn(variables, X), expected)
  outputs, (mean, _) = network.forward_train(variables, X)
  assert (outputs != expected).any()
  assert (mean != variables["batch_stats"]["BatchNorm_0"]["mean"]).any()


def test_what_trains_may_be_said():
  variables = {
    "kernels": [jnp.ones(2), jnp.ones(3)],
    "statistics": jnp.ones(2),
    "count": jnp.ones(2, int),
  }
  network = Network(None, None, variables)
  assert network.trains == (False, True, True, True)  # in the order of keys: count, kernels, ...
  said = {"kernels": True, "statistics": False, "count": False}
  assert Network(None, None, variables, said).trains == (False, True, True, False)
  with pytest.raises(gp.InputError, match="trainable is no prefix of the variables' tree"):
    _ = Network(None, None, variables, {"kernels": True}).trains
  with pytest.raises(gp.InputError, match="trainable of count is True, but it holds int32 values"):
    _ = Network(None, None, variables, {**said, "count": True}).trains
  with pytest.raises(gp.InputError, match="trainable of count is 'no': it must be True or False"):
    _ = Network(None, None, variables, {**said, "count": "no"}).trains
