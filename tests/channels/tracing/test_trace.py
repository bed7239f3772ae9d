"""Tests of the groups and costs that `trace` finds, and of the inputs that it refuses."""

import flax
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.models import cifar_resnet, eval_function
from tests.channels.laws import assert_costs, assert_law
from tests.conftest import Example, small_resnet


def test_groups_of_option_a():
  example = Example(small_resnet("A"))
  graph = gp.trace(example.eval_fn, example.variables, example.x)
  # The padded shortcut adds one channel of zeros on each side. So the stream of stage 1 continues
  # in channels 1..4 of stage 2, and all channels of stage 2 continue in channels 1..6 of stage 3.
  # The widths inside the blocks are independent.
  assert [(group.name, len(group.channels)) for group in graph.groups] == [
    ("params/stem/kernel", 4),
    ("params/stage1_0/conv1/kernel", 4),
    ("params/stage2_0/conv1/kernel", 6),
    ("params/stage2_0/conv2/kernel", 2),
    ("params/stage3_0/conv1/kernel", 8),
    ("params/stage3_0/conv2/kernel", 2),
  ]
  stage2 = next(leaf for leaf in graph.leaves if leaf.path == "params/stage2_0/conv2/kernel")
  np.testing.assert_array_equal(stage2.axes[3][1:5], graph.groups[0].channels)
  np.testing.assert_array_equal(stage2.axes[3][[0, 5]], graph.groups[3].channels)


def test_groups_of_option_b():
  example = Example(small_resnet("B", (16, 32, 64)), shape=(8, 8, 1))
  graph = gp.trace(example.eval_fn, example.variables, example.x)
  assert [len(group.channels) for group in graph.groups] == [16, 16, 32, 32, 64, 64]
  assert graph.num_channels == 224
  # The image has one channel, and an axis of one element is not reported as frozen.
  assert set(graph.frozen) == {"params/head/kernel", "params/head/bias"}
  assert graph.frozen["params/head/kernel"] == "axis 1: output of the model"


def test_frozen_names_the_axis_and_the_reason(example_b):
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  assert graph.frozen["params/stem/kernel"].startswith(
    "axis 2: contracted with what has no channels"
  )


def test_shapes_are_enough(example_b):
  shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), example_b.variables)
  spec = jax.ShapeDtypeStruct((1, 8, 8, 2), jnp.float32)
  one = gp.trace(example_b.eval_fn, shapes, spec)
  other = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  assert one.num_channels == other.num_channels
  ones = np.ones(one.num_channels)
  assert gp.macs(one, ones) == gp.macs(other, ones)  # per example, whatever the batch size


def test_costs_do_not_depend_on_the_traced_batch_size():
  module = cifar_resnet(20, 10)
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
  for batch in (1, 3):
    spec = jax.ShapeDtypeStruct((batch, 32, 32, 3), jnp.float32)
    graph = gp.trace(eval_function(module), shapes, spec)
    ones = np.ones(graph.num_channels)
    # By hand, the kernels have 9 taps and the stages 1024, 256 and 64 positions. The channel
    # products are: stem 3*16, stage 1 6*16*16, stage 2 (16+5*32)*32, stage 3 (32+5*64)*64. The
    # dense layer adds 640.
    assert (
      gp.macs(graph, ones)
      == 9 * (1024 * (3 * 16 + 6 * 256) + 256 * (16 + 5 * 32) * 32 + 64 * (32 + 5 * 64) * 64) + 640
    )


@pytest.mark.parametrize(
  ("operation", "reason"),
  [
    (lambda hidden: jnp.linalg.pinv(hidden).T, "`svd`, which has no rule"),
    (
      lambda hidden: jax.lax.while_loop(lambda h: (h > 1).any(), lambda h: h / 2, hidden),
      "read by the condition of a `while`",
    ),
    # Removing a channel would reorder the other channels.
    (lambda hidden: jnp.sort(hidden, axis=-1), "`sort` over channels"),
  ],
)
def test_an_operation_without_a_rule_freezes_what_it_touches(operation, reason):
  def fn(variables, x):
    hidden = operation(x @ variables["a"])
    hidden = nn.relu(hidden @ variables["b"])
    return hidden @ variables["c"]

  rng = np.random.default_rng(0)
  shapes = {"a": (3, 4), "b": (4, 5), "c": (5, 2)}
  variables = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
  graph = gp.trace(fn, variables, np.ones((2, 3)))
  assert [group.name for group in graph.groups] == ["b"]
  assert reason in graph.frozen["a"]
  mask = np.array([1, 0, 1, 1, 0])
  small = gp.compact(graph, fn, variables, mask)
  x = rng.standard_normal((2, 3))
  np.testing.assert_allclose(
    gp.masked(graph, fn)(variables, mask, x), small.apply(small.variables, x), rtol=1e-5
  )


def test_an_einsum_over_space_and_channels():
  rng = np.random.default_rng(0)
  normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  variables = {"first": normal(2, 4), "last": normal(3, 4, 5)}
  fn = lambda v, x: jnp.einsum("bsc,sco->bo", nn.relu(x @ v["first"]), v["last"])
  x = normal(2, 3, 2)
  graph = gp.trace(fn, variables, x)
  assert [group.members for group in graph.groups] == [(("first", 1), ("last", 1))]
  mask = np.array([1, 0, 1, 0])
  small = gp.compact(graph, fn, variables, mask)
  np.testing.assert_allclose(
    gp.masked(graph, fn)(variables, mask, x), small.apply(small.variables, x), rtol=1e-5
  )
  # The first layer has 3 positions * 2 inputs * 4 channels, and the last layer 3 * 4 * 5.
  assert gp.macs(graph, np.ones(4)) == 24 + 60


def test_captured_weights_are_cut_too():
  kernel, scale = np.arange(12.0).reshape(3, 4), np.arange(4.0)
  fn = lambda variables, x: ((x @ kernel) * scale[None]) @ variables["out"]
  variables = {"out": np.ones((4, 2))}
  graph = gp.trace(fn, variables, np.ones((2, 3)))
  assert graph.num_channels == 4
  small = gp.compact(graph, fn, variables, np.array([0, 1, 0, 1]))
  x = np.ones((2, 3))
  expected = ((x @ kernel) * scale)[:, [1, 3]] @ np.ones((2, 2))
  np.testing.assert_allclose(small.apply(small.variables, x), expected)


def test_captured_layers_stay_whole():
  a, b, c = np.ones((3, 4)), np.ones((4, 5)), np.ones((5, 6))
  fn = lambda v, x: nn.relu(nn.relu(nn.relu(x @ a) @ b) @ c) @ v["o"]
  variables, x = {"o": np.ones((6, 2))}, np.ones((2, 3))
  graph = gp.trace(fn, variables, x)
  assert [group.members for group in graph.groups] == [(("o", 0),)]
  mask = np.array([1, 0, 1, 0, 0, 1])
  assert_costs(graph, assert_law(graph, fn, variables, mask, x), mask, x)
  assert gp.macs(graph, mask) == 3 * 4 + 4 * 5 + 5 * 3 + 3 * 2


def bad_variables(example, value):
  kernel = example.variables["params"]["stem"]["kernel"].at[0, 0, 0, 0].set(value)
  params = {**example.variables["params"], "stem": {"kernel": kernel}}
  return {**example.variables, "params": params}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_variables_must_be_finite(example_b, value):
  with pytest.raises(gp.InputError, match="params/stem/kernel holds 1 values that are NaN"):
    gp.trace(example_b.eval_fn, bad_variables(example_b, value), example_b.x)


def test_a_network_without_channels_is_refused():
  with pytest.raises(gp.InputError, match="the variable: output of the model"):
    gp.trace(lambda v, x: x @ v, np.ones((3, 2)), np.ones((1, 3)))


def test_a_mask_must_fit(example_b):
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  with pytest.raises(gp.InputError, match=rf"shape \(3,\).*{graph.num_channels} channels"):
    gp.masked(graph, example_b.eval_fn)(example_b.variables, np.ones(3), example_b.x)
  half = np.full(graph.num_channels, 0.5)
  with pytest.raises(gp.InputError, match=r"holds 0\.5"):
    gp.compact(graph, example_b.eval_fn, example_b.variables, half)
  empty = np.ones(graph.num_channels)
  empty[graph.groups[1].channels] = 0
  with pytest.raises(gp.InputError, match="all 4 channels of params/stage1_0/conv1/kernel"):
    gp.compact(graph, example_b.eval_fn, example_b.variables, empty)


def test_a_function_that_mixes_channels_is_refused(example_b):
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  ordered = lambda v, x: jnp.sort(v["params"]["stem"]["kernel"], axis=-1)
  mask = np.ones(graph.num_channels)
  with pytest.raises(gp.InputError, match="`sort` over channels"):
    gp.masked(graph, ordered)(example_b.variables, mask, example_b.x)


def test_variables_of_another_network_are_refused(example_b):
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  other = Example(small_resnet("B", (4, 6, 10)))
  mask = np.ones(graph.num_channels)
  with pytest.raises(gp.InputError, match=r"has shape .* but the graph was traced with"):
    gp.masked(graph, other.eval_fn)(other.variables, mask, other.x)


def test_variables_of_another_tree_are_refused_by_the_paths_that_differ(example_b):
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  params = {"params": example_b.variables["params"], "extra": np.ones(1)}
  # Nine normalisations have two statistics each, which makes 18 missing variables.
  message = "18 missing, batch_stats/norm_stem/mean first and 1 that it does not have, extra first"
  with pytest.raises(gp.InputError, match=message):
    gp.compact(graph, example_b.eval_fn, params, np.ones(graph.num_channels))


def test_save_refuses_to_overwrite_and_load_what_is_no_network(example_b, tmp_path):
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x)
  mask = np.ones(graph.num_channels)
  small = gp.compact(graph, example_b.eval_fn, example_b.variables, mask)
  with pytest.raises(gp.InputError, match="exists"):
    gp.save(tmp_path, small, example_b.x)
  with pytest.raises(gp.InputError, match="is not a saved network"):
    gp.load(tmp_path)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_products_of_weights_alone_are_counted_whole(batch):
  fn = lambda v, x: nn.relu(x @ v["h"]) @ v["o"] @ (v["p"] @ v["q"])
  shapes = {"h": (3, 6), "o": (6, 2), "p": (2, 4), "q": (4, 2)}
  variables = {name: np.ones(shape) for name, shape in shapes.items()}
  graph = gp.trace(fn, variables, np.ones((batch, 3)))
  # Each example takes the products 3 -> 6, 6 -> 2 and 2 -> 2. The product of p and q takes
  # 2 * 4 * 2 once, whatever the batch.
  assert gp.macs(graph, np.ones(graph.num_channels)) == 18 + 12 + 4 + 16


def test_an_error_names_the_layers_that_must_stay_and_why():
  def fn(v, x):
    for name in "abcde":
      x = jnp.sort(x @ v[name], axis=-1)
    return jnp.cumsum(x @ v["f"], axis=-1) @ v["g"]

  variables = {name: np.ones((3, 3)) for name in "abcdefg"}
  expected = (
    r"every layer must stay \(a, b, c, d and 1 more: `sort` over channels; f: `cumsum` over "
    r"channels; g: output of the model\)"
  )
  with pytest.raises(gp.InputError, match=expected):
    gp.trace(fn, variables, np.ones((2, 3)))
  with pytest.raises(gp.InputError, match="it has 0 convolutions and dot products, and none with"):
    gp.trace(lambda v, x: x * v["a"][:1], variables, np.ones((2, 3)))


def test_frozen_dicts_are_linen_variables_too(example_b):
  e = example_b
  graph = gp.trace(e.eval_fn, flax.core.freeze(e.variables), e.x)
  sizes = [leaf.size for leaf in jax.tree.leaves(e.variables["params"])]
  assert gp.params(graph, np.ones(graph.num_channels)) == sum(sizes)


def test_an_example_is_needed(example_b):
  with pytest.raises(gp.InputError, match="x holds 0 examples"):
    gp.trace(example_b.eval_fn, example_b.variables, example_b.x[:0])
