"""Compensation against explicit least squares in float64, and the laws it must keep."""

from flax import linen as nn
import jax
from jax.extend.core import get_opaque_trace_state
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import leaf_paths
from gatprune_jax.channels.compensation import compensate, explained, measure_compensation
from tests.channels.laws import assert_same, random_mask
from tests.channels.random_networks import draw_case


def least_squares(x, kept, ridge):
  """Returns B, which predicts the removed columns of x from the kept ones, and the kept columns.

  It minimises |x_R - x_P B|^2 / rows + r |B|^2 by stacking sqrt(rows r) I under x_P.
  """
  kept = np.asarray(kept, bool)
  strength = ridge * np.trace(x.T @ x / len(x)) / x.shape[1]
  stacked = np.concatenate([x[:, kept], np.sqrt(len(x) * strength) * np.eye(kept.sum())])
  target = np.concatenate([x[:, ~kept], np.zeros((kept.sum(), (~kept).sum()))])
  return np.linalg.lstsq(stacked, target, rcond=None)[0]


def compensated_by_hand(kernel, x, kept, ridge):
  """Returns W' of a dense kernel `[n, m]` whose inputs are the rows of x, in float64."""
  kernel, kept = np.asarray(kernel, np.float64), np.asarray(kept, bool)
  new = np.zeros_like(kernel)
  new[kept] = kernel[kept] + least_squares(x, kept, ridge) @ kernel[~kept]
  return new


def perceptron(v, x):
  hidden = jax.nn.relu(x @ v["a"])
  return jax.nn.relu(hidden @ v["b"]) @ v["c"]


def perceptron_variables(rng):
  shapes = {"a": (6, 10), "b": (10, 8), "c": (8, 3)}
  return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("ridge", [1e-3, 1e-1])
def test_it_is_explicit_least_squares(ridge):
  rng = np.random.default_rng(0)
  variables, x = perceptron_variables(rng), rng.standard_normal((200, 6)).astype(np.float32)
  graph = gp.trace(perceptron, variables, x[:2])
  mask = random_mask(graph, rng)
  new = compensate(graph, perceptron, variables, mask, x, ridge)
  relu = lambda a: np.maximum(a, 0)
  first = relu(x.astype(np.float64) @ variables["a"])
  second = relu(first @ variables["b"])
  of = lambda group: mask[graph.groups[group].channels]
  np.testing.assert_array_equal(new["a"], variables["a"])  # its inputs are the images
  for name, inputs, kept in (("b", first, of(0)), ("c", second, of(1))):
    expected = compensated_by_hand(variables[name], inputs, kept, ridge)
    np.testing.assert_allclose(new[name], expected, rtol=1e-5, atol=1e-5 * abs(expected).max())


def test_the_gradient_in_the_weights_by_hand():
  # W'_P = W_P + B W_R is linear in W, so of <C, W'> the gradient is C_P at W_P and B^T C_P at W_R.
  rng = np.random.default_rng(3)
  variables, x = perceptron_variables(rng), rng.standard_normal((200, 6)).astype(np.float32)
  graph = gp.trace(perceptron, variables, x[:2])
  masks = np.stack([random_mask(graph, rng) for _ in range(3)])
  measured = measure_compensation(graph, perceptron, variables, x, 1e-2)
  weight = rng.standard_normal(variables["c"].shape)

  def product(variables, mask):
    return (weight.astype(np.float32) * measured(variables, mask)["c"]).sum()

  gradients = jax.jit(jax.vmap(jax.grad(product), (None, 0)))(variables, masks)
  relu = lambda a: np.maximum(a, 0)
  hidden = relu(relu(x.astype(np.float64) @ variables["a"]) @ variables["b"])
  for gradient, mask in zip(gradients["c"], masks, strict=True):
    kept = mask[graph.groups[1].channels]
    expected = weight.copy()
    expected[~kept] = least_squares(hidden, kept, 1e-2).T @ weight[kept]
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * abs(expected).max())
  assert not any(gradients[name].any() for name in ("a", "b"))


def test_a_bias_takes_the_means():
  # The hidden channels are far from zero, so a regression without a constant would be worse.
  rng = np.random.default_rng(1)
  variables = {
    "a": rng.standard_normal((6, 10)).astype(np.float32),
    "c": rng.standard_normal((10, 3)).astype(np.float32),
    "bias": rng.standard_normal(3).astype(np.float32),
  }
  fn = lambda v, x: (jnp.tanh(x @ v["a"]) + 3.0) @ v["c"] + v["bias"][None]
  x = rng.standard_normal((200, 6)).astype(np.float32)
  graph = gp.trace(fn, variables, x[:2])
  mask = random_mask(graph, rng)
  new = compensate(graph, fn, variables, mask, x)
  hidden = np.tanh(x.astype(np.float64) @ variables["a"]) + 3.0
  with_constant = np.concatenate([hidden, np.ones((200, 1))], axis=1)
  kernel = np.concatenate([variables["c"], variables["bias"][None]])
  expected = compensated_by_hand(kernel, with_constant, np.append(mask, True), 1e-3)
  np.testing.assert_allclose(new["c"], expected[:-1], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(new["bias"], expected[-1], rtol=1e-4, atol=1e-4)


def convolutions(v, x):
  conv = lambda x, w, stride, groups: jax.lax.conv_general_dilated(
    x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )  # fmt: skip
  x = jax.nn.relu(conv(x, v["a"], 1, 1))
  x = jax.nn.relu(conv(x, v["b"], 2, 1))
  x = jax.nn.relu(conv(x, v["d"], 1, v["d"].shape[-1]))  # depthwise: it mixes no channels
  return conv(x, v["c"], 1, 1).mean((1, 2))


def convolution_variables(rng):
  shapes = {"a": (3, 3, 2, 8), "b": (3, 3, 8, 6), "d": (3, 3, 1, 6), "c": (1, 1, 6, 4)}
  return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_a_convolution_mixes_channels_at_each_position():
  rng = np.random.default_rng(2)
  variables, x = convolution_variables(rng), rng.standard_normal((20, 8, 8, 2)).astype(np.float32)
  graph = gp.trace(convolutions, variables, x[:2])
  mask = random_mask(graph, rng)
  new = compensate(graph, convolutions, variables, mask, x)
  hidden = jax.nn.relu(
    jax.lax.conv_general_dilated(
      x, variables["a"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
  )
  rows = np.asarray(hidden, np.float64).reshape(-1, 8)
  kept = mask[graph.groups[0].channels]
  for position in np.ndindex(3, 3):
    expected = compensated_by_hand(variables["b"][position], rows, kept, 1e-3)
    np.testing.assert_allclose(new["b"][position], expected, rtol=1e-4, atol=1e-4)
  for name in ("a", "d"):
    np.testing.assert_array_equal(new[name], variables[name])


def test_a_grouped_convolution_has_a_regression_for_each_group():
  rng = np.random.default_rng(3)
  conv = lambda x, w, groups: jax.lax.conv_general_dilated(
    x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
  )
  fn = lambda v, x: conv(jax.nn.relu(conv(x, v["a"], 1)), v["b"], 2).mean((1, 2))
  shapes = {"a": (1, 1, 3, 12), "b": (1, 1, 6, 4)}
  variables = {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
  x = rng.standard_normal((20, 5, 5, 3)).astype(np.float32)
  graph = gp.trace(fn, variables, x[:2])
  mask = random_mask(graph, rng)
  new = compensate(graph, fn, variables, mask, x)
  hidden = np.maximum(x.reshape(-1, 3).astype(np.float64) @ variables["a"][0, 0], 0)
  ids = graph.leaves[1].axes[2]  # of the second kernel's inputs, the same in both groups
  for group in range(2):
    inputs, outputs = slice(6 * group, 6 * group + 6), slice(2 * group, 2 * group + 2)
    kernel = variables["b"][0, 0][:, outputs]
    expected = compensated_by_hand(kernel, hidden[:, inputs], mask[ids], 1e-3)
    np.testing.assert_allclose(new["b"][0, 0][:, outputs], expected, rtol=1e-4, atol=1e-4)


SEEDS = (0, 3, 4, 9, 12)


def random_network(seed):
  """Returns function, variables, inputs and graph of a random network, and its compensation."""
  case = draw_case(seed)
  x = jax.tree.map(np.float32, case.x)
  variables = jax.tree.map(np.float32, case.variables)
  graph = gp.trace(case.eval_fn, variables, x)
  measured = measure_compensation(graph, case.eval_fn, variables, x)
  return case.eval_fn, variables, x, graph, measured


# One program compiles faster than its operations one by one.
compensated = jax.jit(lambda measured, variables, mask: measured(variables, mask))


def layers_by_flax(case):
  """Returns {path of a kernel: (inputs of its layer at all positions, module)}, by Flax alone.

  A layer that is called within another `jit` or several times is left out.
  """
  modules, calls = {}, []

  @jax.jit
  def inputs_of_layers(variables, x):
    seen, here = {}, get_opaque_trace_state(convention="flax")

    def record(next_fn, args, kwargs, context):
      module = context.module
      if context.method_name == "__call__" and isinstance(module, (nn.Conv, nn.Dense)):
        calls.append(module.path)
        if get_opaque_trace_state(convention="flax") == here:
          seen["/".join(module.path)], modules[module.path] = args[0], module
      return next_fn(*args, **kwargs)

    with nn.intercept_methods(record):
      case.eval_fn(variables, x)
    return seen

  seen = inputs_of_layers(case.variables, case.x)
  return {
    path: (np.asarray(seen["/".join(path)]), module)
    for path, module in modules.items()
    if calls.count(path) == 1
  }


@pytest.mark.parametrize(
  "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 12))]
)
def test_it_is_explicit_least_squares_on_random_networks(seed):
  case = draw_case(seed)
  with jax.enable_x64(True):
    graph = gp.trace(case.eval_fn, case.variables, case.x)
    measured = measure_compensation(graph, case.eval_fn, case.variables, case.x)
    mask = random_mask(graph, np.random.default_rng(seed))
    new = compensated(measured, case.variables, mask)
    layers = layers_by_flax(case)
  compared = 0
  paths = dict(zip(leaf_paths(case.variables), range(len(graph.leaves)), strict=True))
  for reader in measured.readers:
    leaf = graph.leaves[reader.leaf]
    module_path = tuple(leaf.path.split("/")[1:-1])
    if module_path not in layers or reader.num_groups > 1:
      continue
    x, module = layers[module_path]
    if isinstance(module, nn.Conv) and set(module.kernel_size) == {1}:
      strides = np.broadcast_to(module.strides or 1, 2)
      x = x[:, :: strides[0], :: strides[1]]
    rows = x.reshape(-1, x.shape[-1])
    kept = np.append(mask, True)[leaf.axes[reader.axis]]
    old, own = (
      np.asarray(jax.tree.leaves(tree)[reader.leaf], np.float64) for tree in (case.variables, new)
    )
    old, own = old.reshape(-1, *old.shape[-2:]), own.reshape(-1, *own.shape[-2:])
    if module.use_bias:
      rows, kept = np.concatenate([rows, np.ones((len(rows), 1))], axis=1), np.append(kept, True)
    shift = np.zeros(old.shape[-1])
    for here, there in zip(old, own, strict=True):  # for each position of a convolution's kernel
      kernel = np.concatenate([here, np.zeros((1, here.shape[1]))]) if module.use_bias else here
      expected = compensated_by_hand(kernel, rows, kept, measured.ridge)
      if module.use_bias:
        shift, expected = shift + expected[-1], expected[:-1]
      assert_same(there, expected, 1e-5)
    if module.use_bias:
      place = paths["/".join(("params", *module_path, "bias"))]
      before, after = (jax.tree.leaves(tree)[place] for tree in (case.variables, new))
      assert_same(after, before + shift, 1e-5)
    compared += 1
  assert compared > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_laws_on_random_networks(seed):
  fn, variables, x, graph, measured = random_network(seed)
  # The full mask changes nothing.
  full = compensated(measured, variables, np.ones(graph.num_channels, bool))
  jax.tree.map(lambda a, b: assert_same(a, b, 1e-6), full, variables)
  mask = random_mask(graph, np.random.default_rng(seed))
  new = compensated(measured, variables, mask)
  # Masked and compact networks are the same with the new variables too.
  small = gp.compact(graph, fn, new, mask)
  masked = jax.jit(gp.masked(graph, fn))(new, mask, x)
  assert_same(masked, jax.jit(small.apply)(small.variables, x))
  # Under vmap every mask is compensated as it is alone.
  both = jax.jit(jax.vmap(measured, (None, 0)))(
    variables, jnp.stack([jnp.asarray(mask), jnp.ones(graph.num_channels, bool)])
  )
  jax.tree.map(lambda rows, one: assert_same(rows[0], one), both, new)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_input_is_predicted_worse_than_by_zero(seed):
  # With E the mean square of what is left of each input, E_zero - E is positive semidefinite.
  _, _, _, graph, measured = random_network(seed)
  mask = random_mask(graph, np.random.default_rng(seed))
  assert len(measured.readers) > 1
  for reader, grams in zip(measured.readers, measured.grams, strict=True):
    kept = np.append(mask, True)[graph.leaves[reader.leaf].axes[reader.axis]]
    if reader.bias is not None:
      kept = np.append(kept, True)
    for gram in np.asarray(grams, np.float64):
      strength = measured.ridge * np.trace(gram) / len(gram)
      within = gram[np.ix_(kept, kept)] + strength * np.eye(kept.sum())
      b = np.linalg.solve(within, gram[np.ix_(kept, ~kept)])
      gain = b.T @ gram[np.ix_(kept, ~kept)]
      gain = gain + gain.T - b.T @ gram[np.ix_(kept, kept)] @ b
      assert np.linalg.eigvalsh(gain).min(initial=0) >= -1e-6 * max(np.trace(gram), 1e-9)


def test_the_network_is_nearer_to_the_dense_one(example):
  graph = gp.trace(example.eval_fn, example.variables, example.x)
  measured = measure_compensation(graph, example.eval_fn, example.variables, example.x)
  masked = jax.jit(gp.masked(graph, example.eval_fn))
  dense = masked(example.variables, np.ones(graph.num_channels, bool), example.x)
  better = []
  for seed in range(8):
    mask = random_mask(graph, np.random.default_rng(seed), keep=0.7)
    error = lambda variables, mask=mask: float(
      ((masked(variables, mask, example.x) - dense) ** 2).mean()
    )
    better.append(error(compensated(measured, example.variables, mask)) < error(example.variables))
  assert sum(better) >= 7


def test_compact_folds_it_in(example_b):
  e = example_b
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  mask = random_mask(graph, np.random.default_rng(7))
  new = gp.compensate(graph, e.eval_fn, e.variables, mask, e.x)
  expected = gp.compact(graph, e.eval_fn, new, mask)
  small = gp.compact(graph, e.eval_fn, e.variables, mask, images=e.x)
  jax.tree.map(np.testing.assert_array_equal, small.variables, expected.variables)


def test_a_shared_kernel_has_the_sum_of_its_matrices():
  rng = np.random.default_rng(5)
  normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  fn = lambda v, x: jax.nn.relu(jax.nn.relu(jax.nn.relu(x @ v["a"]) @ v["s"]) @ v["s"]) @ v["z"]
  variables, x = {"a": normal(3, 4), "s": normal(4, 4), "z": normal(4, 2)}, normal(50, 3)
  graph = gp.trace(fn, variables, x)
  measured = measure_compensation(graph, fn, variables, x)
  assert [graph.leaves[reader.leaf].path for reader in measured.readers] == ["s", "z"]
  relu = lambda a: np.maximum(a, 0)
  first = relu(x.astype(np.float64) @ variables["a"])
  second = relu(first @ variables["s"])
  third = relu(second @ variables["s"])
  expected = (first.T @ first + second.T @ second) / 100
  np.testing.assert_allclose(measured.grams[0][0], expected, rtol=1e-4)
  np.testing.assert_allclose(measured.grams[1][0], third.T @ third / 50, rtol=1e-4)


@pytest.mark.parametrize(
  ("images", "ridge", "sentence"),
  [
    (0, 1e-3, "compensation needs images"),
    (20, -1.0, r"ridge is -1\.0: it must not be negative"),
    (2, 0.0, "depend on each other, and ridge is 0"),
  ],
)
def test_what_cannot_be_computed_is_refused(images, ridge, sentence):
  rng = np.random.default_rng(6)
  variables, x = perceptron_variables(rng), rng.standard_normal((20, 6)).astype(np.float32)
  graph = gp.trace(perceptron, variables, x[:2])
  mask = random_mask(graph, rng)
  with pytest.raises(gp.InputError, match=sentence):
    compensate(graph, perceptron, variables, mask, x[:images], ridge)


def explained_by_hand(x, ids, mask, ridge):
  """Returns R2 of each channel of inputs x `[rows, n]`, by a regression of its own for each."""
  energy, residual = np.zeros((2, len(mask)))
  total = np.trace(x.T @ x / len(x)) / x.shape[1]
  for channel in range(len(mask)):
    own = ids == channel
    rest = x[:, mask[ids] & ~own]
    penalty = np.sqrt(len(x) * ridge * total) * np.eye(rest.shape[1])
    target = np.concatenate([x[:, own], np.zeros((rest.shape[1], own.sum()))])
    found = np.linalg.lstsq(np.concatenate([rest, penalty]), target, rcond=None)[0]
    residual[channel] = ((x[:, own] - rest @ found) ** 2).sum()
    energy[channel] = (x[:, own] ** 2).sum()
  return 1 - residual / energy


@pytest.mark.parametrize("ridge", [1e-3, 1e-1])
def test_what_is_explained_is_explicit_least_squares(ridge):
  rng = np.random.default_rng(3)
  variables, x = perceptron_variables(rng), rng.standard_normal((200, 6)).astype(np.float32)
  graph = gp.trace(perceptron, variables, x[:2])
  mask = random_mask(graph, rng)
  assert 0 < mask.sum() < len(mask)
  found = explained(measure_compensation(graph, perceptron, variables, x, ridge), mask)
  relu = lambda a: np.maximum(a, 0)
  first = relu(x.astype(np.float64) @ variables["a"])
  second = relu(first @ variables["b"])
  for group, inputs in zip(graph.groups, (first, second), strict=True):
    ids = np.arange(inputs.shape[1])
    expected = explained_by_hand(inputs, ids, mask[group.channels], ridge)
    np.testing.assert_allclose(found[group.channels], expected, atol=2e-4)


def test_a_channel_of_several_inputs_leaves_with_all_of_them():
  # Every channel is flattened to four inputs, which would explain each other.
  rng = np.random.default_rng(4)
  fn = lambda v, x: jnp.maximum(jnp.einsum("bhc,cd->bhd", x, v["a"]), 0).reshape(-1, 20) @ v["b"]
  variables = {"a": rng.standard_normal((3, 5)), "b": rng.standard_normal((20, 2))}
  variables = jax.tree.map(np.float32, variables)
  x = rng.standard_normal((300, 4, 3)).astype(np.float32)
  graph = gp.trace(fn, variables, x[:2])
  mask = np.array([True, False, True, True, False])
  found = explained(measure_compensation(graph, fn, variables, x), mask)
  inputs = np.maximum(x.astype(np.float64) @ variables["a"], 0).reshape(-1, 20)
  expected = explained_by_hand(inputs, np.tile(np.arange(5), 4), mask, 1e-3)
  np.testing.assert_allclose(found, expected, atol=2e-4)


def test_copies_are_explained_and_zeros_count_as_explained():
  # Of four hidden units, two are equal, one is zero, and one is alone.
  fn = lambda v, x: jax.nn.relu(x @ v["a"]) @ v["b"]
  kernel = np.array([[1, 1, 0, 0], [0, 0, 0, 1]], np.float32)
  variables = {"a": kernel, "b": np.ones((4, 2), np.float32)}
  x = np.array([[1, 0], [0, 1]] * 8, np.float32)
  graph = gp.trace(fn, variables, x[:2])
  compensation = measure_compensation(graph, fn, variables, x)
  found = explained(compensation, np.array([True, False, False, False]))
  # Unit 1 is unit 0; r = 1e-3 (0.5 + 0.5 + 0.5) / 4 leaves the share (r / (r + 0.5))^2 = 5.6e-7.
  # Nothing explains units 0 and 3.
  np.testing.assert_allclose(found, [0, 1 - 5.6e-7, 1, 0], atol=1e-7)
  with pytest.raises(gp.InputError, match="4 channels"):
    explained(compensation, np.ones(3))
