"""Tests of the law: a masked network, the compact one and its copy read from disk are the same."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import compact_function, compact_variables
from tests.channels.laws import assert_costs, assert_law, assert_same, random_mask
from tests.conftest import perturbed


class Vgg(nn.Module):
  """Two convolutions, flattened into dense layers."""

  @nn.compact
  def __call__(self, x, train=False):
    for width in (6, 5):
      x = nn.Conv(width, (3, 3))(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
      x = nn.max_pool(x, (2, 2), (2, 2))
    x = nn.relu(nn.Dense(7)(x.reshape(x.shape[0], -1)))
    return nn.Dense(3)(x)


class MobileBlock(nn.Module):
  """A block with a depthwise convolution, squeeze-and-excitation and a residual connection."""

  @nn.compact
  def __call__(self, x, train=False):
    norm = lambda x: nn.BatchNorm(use_running_average=not train)(x)
    x = nn.relu(norm(nn.Conv(6, (3, 3), strides=2)(x)))
    y = nn.relu6(norm(nn.Conv(12, (1, 1))(x)))
    y = nn.relu6(norm(nn.Conv(12, (3, 3), feature_group_count=12)(y)))
    squeezed = nn.swish(nn.Dense(4)(y.mean((1, 2), keepdims=True)))
    y = y * nn.sigmoid(nn.Dense(12)(squeezed))
    x = x + norm(nn.Conv(6, (1, 1))(y))
    return nn.Dense(3)(x.mean((1, 2)))


class DenseBlock(nn.Module):
  """A densely connected block; the concatenated features include the input image."""

  @nn.compact
  def __call__(self, x, train=False):
    for width in (5, 4):
      y = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(width, (3, 3))(x)))
      x = jnp.concatenate([x, y], axis=-1)
    x = nn.avg_pool(nn.remat(nn.Conv)(6, (1, 1))(x), (2, 2), (2, 2))
    return nn.Dense(3)(nn.gelu(x).mean((1, 2)))


class Normed(nn.Module):
  """A network with layer norm, whose statistics over channels freeze the first convolution."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.LayerNorm()(nn.Conv(6, (3, 3))(x))
    x = nn.relu(nn.Conv(5, (3, 3), use_bias=False)(x))
    return nn.Dense(3)(x.mean((1, 2)))


def network(name):
  modules = {"vgg": Vgg, "mobile": MobileBlock, "dense": DenseBlock, "normed": Normed}
  module = modules[name]()
  x = np.random.default_rng(2).standard_normal((4, 8, 8, 2)).astype(np.float32)
  variables = perturbed(jax.jit(module.init)(jax.random.key(0), x))
  eval_fn = lambda v, x: module.apply(v, x)
  train_fn = lambda v, x: module.apply(v, x, train=True, mutable=["batch_stats"])
  return eval_fn, train_fn, variables, x


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
def test_resnet_masked_equals_compact(example, keep):
  rng = np.random.default_rng(int(keep * 10))
  graph = gp.trace(example.eval_fn, example.variables, example.x)
  masked_eval = jax.jit(gp.masked(graph, example.eval_fn))
  masked_train = jax.jit(gp.masked(graph, example.train_fn))
  for _ in range(2):
    mask = random_mask(graph, rng, keep)
    small = gp.compact(graph, example.eval_fn, example.variables, mask)
    expected = jax.jit(small.apply)(small.variables, example.x)
    assert_same(masked_eval(example.variables, mask, example.x), expected)
    compact_train = jax.jit(compact_function(graph, example.train_fn, mask))
    logits, stats = compact_train(small.variables, example.x)
    masked_logits, masked_stats = masked_train(example.variables, mask, example.x)
    assert_same(masked_logits, logits)
    # The statistics of the compact network are the kept part of those of the masked network.
    cut = compact_variables(graph, {**example.variables, **masked_stats}, mask)
    jax.tree.map(assert_same, cut["batch_stats"], stats["batch_stats"])


@pytest.mark.parametrize("name", ["vgg", "mobile", "dense", "normed"])
def test_other_networks_masked_equals_compact(name):
  eval_fn, train_fn, variables, x = network(name)
  graph = gp.trace(eval_fn, variables, x)
  for seed in range(2):
    mask = random_mask(graph, np.random.default_rng(seed))
    for fn in (eval_fn, train_fn):
      assert_law(graph, fn, variables, mask, x)


def test_costs_equal_those_counted_on_the_compact_network(example):
  graph = gp.trace(example.eval_fn, example.variables, example.x)
  rng = np.random.default_rng(3)
  for mask in [np.ones(graph.num_channels, bool), *(random_mask(graph, rng) for _ in range(4))]:
    small = gp.compact(graph, example.eval_fn, example.variables, mask)
    assert_costs(graph, small, mask, example.x)


@pytest.mark.parametrize("name", ["vgg", "mobile", "dense", "normed"])
def test_costs_of_other_networks(name):
  eval_fn, _, variables, x = network(name)
  graph = gp.trace(eval_fn, variables, x)
  mask = random_mask(graph, np.random.default_rng(4))
  small = gp.compact(graph, eval_fn, variables, mask)
  assert_costs(graph, small, mask, x)


def test_traced_costs_agree_and_have_gradients(example):
  graph = gp.trace(example.eval_fn, example.variables, example.x)
  mask = random_mask(graph, np.random.default_rng(5)).astype(np.float32)
  value, gradient = jax.jit(jax.value_and_grad(lambda m: gp.macs(graph, m)))(mask)
  np.testing.assert_allclose(value, gp.macs(graph, mask), rtol=1e-6)
  # The cost is linear in each single channel, so the gradient equals the exact difference.
  for channel in (0, graph.num_channels // 2, graph.num_channels - 1):
    on, off = mask.copy(), mask.copy()
    on[channel], off[channel] = 1, 0
    if channel in graph.layers[0].outputs:
      continue  # some layer reads and writes the stream, so the cost is quadratic in its channels
    difference = gp.macs(graph, on) - gp.macs(graph, off)
    np.testing.assert_allclose(gradient[channel], difference, rtol=1e-5)


def test_three_training_steps_keep_the_law(example):
  graph = gp.trace(example.eval_fn, example.variables, example.x)
  mask = random_mask(graph, np.random.default_rng(6))
  small = gp.compact(graph, example.eval_fn, example.variables, mask)
  optimizer = optax.sgd(0.05, momentum=0.9)

  def trained(train_fn, variables):
    def loss(params, stats):
      logits, updated = train_fn({"params": params, **stats}, example.x)
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, example.y)
      return losses.mean(), updated

    @jax.jit
    def step(params, stats, opt_state):
      grads, stats = jax.grad(loss, has_aux=True)(params, stats)
      updates, opt_state = optimizer.update(grads, opt_state)
      return optax.apply_updates(params, updates), stats, opt_state

    params, stats = variables["params"], {"batch_stats": variables["batch_stats"]}
    opt_state = optimizer.init(params)
    for _ in range(3):
      params, stats, opt_state = step(params, stats, opt_state)
    return {"params": params, **stats}

  masked_fn = gp.masked(graph, example.train_fn)
  masked = trained(lambda v, x: masked_fn(v, mask, x), example.variables)
  compact = trained(compact_function(graph, example.train_fn, mask), small.variables)
  assert_same(
    jax.jit(gp.masked(graph, example.eval_fn))(masked, mask, example.x),
    jax.jit(small.apply)(compact, example.x),
    tolerance=1e-4,
  )


def test_saved_networks_reload_with_any_batch_size_and_gradients(example, tmp_path):
  graph = gp.trace(example.eval_fn, example.variables, example.x)
  mask = random_mask(graph, np.random.default_rng(7))
  small = gp.compact(graph, example.eval_fn, example.variables, mask)
  gp.save(tmp_path / "net", small, example.x)
  loaded = gp.load(tmp_path / "net")
  jax.tree.map(np.testing.assert_array_equal, loaded.variables, small.variables)
  for num in (1, 5):
    assert_same(
      loaded.apply(loaded.variables, example.x[:num]), small.apply(small.variables, example.x[:num])
    )
  loss = lambda apply: jax.jit(jax.grad(lambda v: (apply(v, example.x) ** 2).mean()))
  expected = loss(small.apply)(small.variables)["params"]
  jax.tree.map(
    lambda a, b: assert_same(a, b, 1e-4), loss(loaded.apply)(loaded.variables)["params"], expected
  )


def test_bfloat16_variables_survive_saving(example_b, tmp_path):
  variables = jax.tree.map(lambda a: a.astype(jnp.bfloat16), example_b.variables)
  graph = gp.trace(example_b.eval_fn, variables, example_b.x)
  mask = random_mask(graph, np.random.default_rng(8))
  small = gp.compact(graph, example_b.eval_fn, variables, mask)
  gp.save(tmp_path / "net", small, example_b.x)
  loaded = gp.load(tmp_path / "net")
  assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(loaded.variables))
  jax.tree.map(np.testing.assert_array_equal, loaded.variables, small.variables)


def test_masked_works_under_vmap(example_b):
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  rng = np.random.default_rng(9)
  masks = np.stack([random_mask(graph, rng) for _ in range(3)])
  masked = gp.masked(graph, example_b.eval_fn)
  together = jax.jit(jax.vmap(masked, (None, 0, None)))(example_b.variables, masks, example_b.x)
  for mask, logits in zip(masks, together, strict=True):
    assert_same(jax.jit(masked)(example_b.variables, mask, example_b.x), logits)


def test_relu_keeps_its_own_derivative_at_zero():
  # jax.nn.relu defines a derivative of 0 at 0; the derivative of max(x, 0) there would be 1/2.
  fn = lambda v, x: nn.relu(x @ v["a"]) @ v["b"]
  variables = {"a": jnp.zeros((2, 3)), "b": jnp.ones((3, 1))}
  x = jnp.ones((1, 2))
  graph = gp.trace(fn, variables, x)
  small = gp.compact(graph, fn, variables, np.array([1, 0, 1]))
  gradient = jax.grad(lambda v: small.apply(v, x).sum())(small.variables)
  np.testing.assert_array_equal(gradient["a"], np.zeros((2, 2)))


def test_a_derivative_rule_with_an_integer_operand_is_kept():
  @jax.custom_jvp
  def scale(x, times):
    return x * times

  # The rule returns three times the true derivative, so that the test detects whether it is used.
  scale.defjvp(lambda p, t: (scale(*p), 3 * t[0] * p[1]))
  fn = lambda v, x: scale(nn.relu(x @ v["a"]), 2) @ v["b"]
  variables, x = {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 1))}, jnp.ones((1, 2))
  small = gp.compact(gp.trace(fn, variables, x), fn, variables, np.array([1, 0, 1]))
  gradient = jax.grad(lambda v: small.apply(v, x).sum())(small.variables)
  np.testing.assert_array_equal(gradient["a"], np.full((2, 2), 6.0))


def test_a_derivative_rule_that_looks_at_all_channels_is_refused():
  @jax.custom_jvp
  def own(x):
    return jnp.maximum(x, 0)

  own.defjvp(lambda p, t: (own(*p), jnp.cumsum(t[0], axis=-1)))
  fn = lambda v, x: own(x @ v["a"]) @ v["b"]
  variables, x = {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 1))}, jnp.ones((1, 2))
  small = gp.compact(gp.trace(fn, variables, x), fn, variables, np.array([1, 0, 1]))
  assert small.apply(small.variables, x) == 4
  with pytest.raises(gp.InputError, match="the derivative rule of a function cannot lose chann"):
    jax.grad(lambda v: small.apply(v, x).sum())(small.variables)


@jax.custom_vjp
def rounded(x, levels):
  return jnp.round(x * levels) / levels


# Straight through: rounding has no slope, and the rule returns three times the cotangent.
rounded.defvjp(lambda x, levels: (rounded(x, levels), levels), lambda levels, g: (3 * g, None))


def test_a_reverse_rule_is_kept():
  fn = lambda v, x: rounded(x @ v["a"], 16) @ v["b"]
  variables, x = {"a": jnp.ones((2, 3)) / 7, "b": jnp.ones((3, 1))}, jnp.ones((1, 2))
  graph = gp.trace(fn, variables, x)
  mask = np.array([1, 0, 1])
  small = assert_law(graph, fn, variables, mask, x)
  gradient = jax.grad(lambda v: small.apply(v, x).sum())(small.variables)
  np.testing.assert_array_equal(gradient["a"], np.full((2, 2), 3.0))
  masked = jax.grad(lambda v: gp.masked(graph, fn)(v, mask, x).sum())(variables)
  np.testing.assert_array_equal(masked["a"], [[3, 0, 3], [3, 0, 3]])


def test_a_reverse_rule_under_masks_side_by_side():
  fn = lambda v, x: rounded(x @ v["a"], 16) @ v["b"]
  rng = np.random.default_rng(0)
  variables = {"a": jnp.asarray(rng.normal(size=(2, 3))), "b": jnp.asarray(rng.normal(size=(3, 1)))}
  x, masks = jnp.ones((4, 2)), np.array([[1, 0, 1], [0, 1, 1]])
  graph = gp.trace(fn, variables, x)
  gradient = jax.grad(lambda v, mask: (gp.masked(graph, fn)(v, mask, x) ** 2).sum())
  together = jax.jit(jax.vmap(gradient, (None, 0)))(variables, jnp.asarray(masks))
  for one, mask in enumerate(masks):
    small = gp.compact(graph, fn, variables, mask)
    own = jax.jit(jax.grad(lambda v, run=small.apply: (run(v, x) ** 2).sum()))(small.variables)
    assert_same(own["a"], together["a"][one][:, mask > 0])


def test_a_reverse_rule_that_looks_at_all_channels_is_refused():
  own = jax.custom_vjp(lambda x: jnp.maximum(x, 0))
  own.defvjp(lambda x: (jnp.maximum(x, 0), None), lambda _, g: (jnp.cumsum(g, axis=-1),))
  fn = lambda v, x: own(x @ v["a"]) @ v["b"]
  variables, x = {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 1))}, jnp.ones((1, 2))
  small = gp.compact(gp.trace(fn, variables, x), fn, variables, np.array([1, 0, 1]))
  with pytest.raises(gp.InputError, match="the derivative rule of a function cannot lose chann"):
    jax.grad(lambda v: small.apply(v, x).sum())(small.variables)


def test_outputs_split_over_axes_are_refused():
  features = lambda v, x: nn.relu(x @ v["a"]).reshape(-1, 2, 3)
  fn = lambda v, x: nn.relu(x @ v["a"]) @ v["b"]
  variables, x = {"a": jnp.ones((2, 6)), "b": jnp.ones((6, 1))}, jnp.ones((1, 2))
  graph = gp.trace(fn, variables, x)
  small = gp.compact(graph, features, variables, np.array([1, 0, 1, 1, 1, 0]))
  with pytest.raises(gp.InputError, match="channels split over several axes"):
    small.apply(small.variables, x)


def test_the_dense_variables_are_not_taken_for_the_compact_ones(example_b):
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  mask = random_mask(graph, np.random.default_rng(10))
  small = gp.compact(graph, example_b.eval_fn, example_b.variables, mask)
  with pytest.raises(gp.InputError, match=r"has shape .*, but under this mask it has"):
    small.apply(example_b.variables, example_b.x)
  tree = small.variables["params"]
  with pytest.raises(gp.InputError, match="not the tree that the graph was traced with"):
    small.apply(tree, example_b.x)
