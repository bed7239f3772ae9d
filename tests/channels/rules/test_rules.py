"""Tests of how operations carry channels.

The groups are worked out by hand, and each function must give the same outputs masked and compact.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from tests.channels.laws import assert_costs, assert_law, assert_same, random_mask

X = np.random.default_rng(0).standard_normal((2, 6, 6, 3)).astype(np.float32)


def conv(x, kernel, groups=1):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )  # fmt: skip


def weights(**shapes):
  rng = np.random.default_rng(1)
  return {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}


def indices(graph, path, axis):
  """Returns the channel ids along an axis of the variable at a path, as a list."""
  return next(leaf for leaf in graph.leaves if leaf.path == path).axes[axis].tolist()


def check(fn, variables, masks=3, x=X):
  """Traces the function, checks the laws on random masks, and returns the graph.

  Args:
    fn: a function of (variables, x).
    variables: its variables.
    masks: the number of random masks.
    x: a batch of inputs.
  """
  graph = gp.trace(fn, variables, x)
  masked = jax.jit(gp.masked(graph, fn))
  rng = np.random.default_rng(2)
  for _ in range(masks):
    mask = random_mask(graph, rng)
    assert_costs(graph, assert_law(graph, fn, variables, mask, x, masked=masked), mask, x)
  return graph


def test_a_channel_shuffle_permutes_channels_and_couples_none():
  def fn(v, x):
    y = nn.relu(conv(x, v["a"]))
    y = y.reshape(*y.shape[:3], 2, 3).swapaxes(-1, -2).reshape(y.shape)
    return (nn.relu(conv(y, v["b"])).mean((1, 2))) @ v["c"]

  graph = check(fn, weights(a=(1, 1, 3, 6), b=(1, 1, 6, 4), c=(4, 2)))
  # The shuffle writes two rows of three channels and reads them by columns.
  assert indices(graph, "a", 3) == [0, 1, 2, 3, 4, 5]
  assert indices(graph, "b", 2) == [0, 3, 1, 4, 2, 5]


def test_a_split_axis_that_is_computed_with_is_coupled_along_its_longest_axis():
  def fn(v, x):
    y = conv(x, v["a"])
    y = y.reshape(*y.shape[:3], 2, 3)
    y = (y * v["gain"][None, None, None]).reshape(*X.shape[:3], 6)  # one gain per column
    return nn.relu(y).mean((1, 2)) @ v["c"]

  graph = check(fn, weights(a=(1, 1, 3, 6), gain=(1, 3), c=(6, 2)))
  assert indices(graph, "a", 3) == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("last", [True, False])
def test_pixel_shuffle(last):
  def fn(v, x):
    y = conv(x, v["a"])
    b, h, w, _ = y.shape
    if last:  # the channels are the last factor of the split axis
      y = y.reshape(b, h, w, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5)
    else:
      y = y.reshape(b, h, w, 3, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    y = y.reshape(b, 2 * h, 2 * w, 3)
    return nn.relu(conv(y, v["b"])).mean((1, 2)) @ v["c"]

  graph = check(fn, weights(a=(3, 3, 3, 12), b=(3, 3, 3, 4), c=(4, 2)))
  assert [len(group.channels) for group in graph.groups] == [3, 4]


def test_space_to_depth_and_unflattening():
  def fn(v, x):
    y = conv(x, v["a"])
    y = y.reshape(2, 3, 2, 3, 2, 4).transpose(0, 1, 3, 2, 4, 5).reshape(2, 3, 3, 16)
    y = nn.relu(y).reshape(2, -1).reshape(2, 9, 2, 2, 4)[:, :, 0, 1]
    return nn.relu(y).mean(1) @ v["c"]

  graph = check(fn, weights(a=(3, 3, 3, 4), c=(4, 2)))
  assert graph.num_channels == 4


def test_splits_strided_slices_and_reversal_select_labels():
  def fn(v, x):
    y = conv(x, v["a"])
    first, rest = jnp.split(y, [2], axis=-1)
    y = jnp.concatenate([nn.relu(rest)[..., ::-1], first[..., ::2]], axis=-1)
    return y.mean((1, 2)) @ v["c"]

  graph = check(fn, weights(a=(1, 1, 3, 5), c=(4, 2)))
  # Channel 1 is sliced away, so no layer reads it. The other four arrive in the order 4, 3, 2, 0.
  assert indices(graph, "a", 3) == [0, -1, 1, 2, 3]
  assert indices(graph, "c", 0) == [3, 2, 1, 0]
  assert graph.frozen["a"].endswith("no layer reads it")


@pytest.mark.parametrize(
  ("groups", "inputs", "outputs", "expected_in", "expected_out"),
  [
    # Every one of a few wide groups loses the same channels.
    (2, 6, 8, [0, 1, 2, 0, 1, 2], [3, 4, 5, 6, 3, 4, 5, 6]),
    # Many narrow groups are removed as a whole, together with their inputs.
    (4, 4, 8, [0, 1, 2, 3], [0, 0, 1, 1, 2, 2, 3, 3]),
    (4, 8, 8, [0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 1, 1, 2, 2, 3, 3]),
    (5, 5, 5, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
  ],
)
def test_grouped_convolutions(groups, inputs, outputs, expected_in, expected_out):
  def fn(v, x):
    y = nn.relu(conv(x, v["a"]))
    y = nn.relu(conv(y, v["grouped"], groups))
    return y.mean((1, 2)) @ v["c"]

  shapes = {"a": (1, 1, 3, inputs), "grouped": (3, 3, inputs // groups, outputs)}
  graph = check(fn, weights(**shapes, c=(outputs, 2)))
  assert indices(graph, "a", 3) == expected_in
  assert indices(graph, "grouped", 3) == expected_out == indices(graph, "c", 0)


def test_group_norms():
  class Net(nn.Module):
    groups: int | None

    @nn.compact
    def __call__(self, x):
      y = nn.Conv(6, (3, 3))(x)
      size = {"group_size": 1} if self.groups is None else {}
      y = nn.relu(nn.GroupNorm(self.groups, epsilon=0.1, **size)(y))
      return nn.Dense(2)(nn.relu(nn.Conv(4, (1, 1))(y)).mean((1, 2)))

  # Of two groups of three channels the same channels are removed.
  for groups, widths in ((None, [6, 4]), (2, [3, 4])):
    module = Net(groups)
    variables = jax.jit(module.init)(jax.random.key(0), X)
    graph = check(lambda v, x, module=module: module.apply(v, x), variables)
    assert [len(group.channels) for group in graph.groups] == widths


def test_dropout_draws_the_same_noise_for_the_channels_that_stay():
  class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
      y = nn.Dropout(0.5, deterministic=not train)(nn.relu(nn.Conv(6, (3, 3))(x)))
      y = nn.Dropout(0.5, broadcast_dims=(1, 2), deterministic=not train)(nn.Conv(5, (1, 1))(y))
      return nn.Dense(2)(y.mean((1, 2)))

  module = Net()
  variables = jax.jit(module.init)(jax.random.key(0), X)
  graph = check(lambda v, x: module.apply(v, x), variables)
  assert graph.num_channels == 11
  train = lambda v, x, key: module.apply(v, x, train=True, rngs={"dropout": key})
  mask = random_mask(graph, np.random.default_rng(3))
  for seed in range(2):
    assert_law(graph, train, variables, mask, X, jax.random.key(seed))


def test_resized_images_keep_their_channels():
  def fn(v, x):
    y = nn.relu(conv(x, v["a"]))
    y = jax.image.resize(y, (2, 9, 7, 5), "bilinear")
    return nn.relu(conv(y, v["b"])).mean((1, 2)) @ v["c"]

  graph = check(fn, weights(a=(3, 3, 3, 5), b=(1, 1, 5, 4), c=(4, 2)))
  assert [len(group.channels) for group in graph.groups] == [5, 4]


def test_layers_inside_a_scan_are_counted_in_every_iteration():
  def fn(v, x):
    y = nn.relu(conv(nn.relu(conv(x, v["a"])), v["b"]))
    y, _ = jax.lax.scan(lambda y, kernel: (nn.relu(conv(y, kernel)), None), y, v["stack"])
    return y.mean((1, 2)) @ v["c"]

  graph = check(fn, weights(a=(3, 3, 3, 5), b=(3, 3, 5, 4), stack=(3, 3, 3, 4, 4), c=(4, 2)))
  assert [group.name for group in graph.groups] == ["a", "b"]
  # The convolutions have 36 positions * 9 taps and the channels 3 -> 5, 5 -> 4, and three times
  # 4 -> 4. The last layer has 4 * 2 multiply-adds.
  assert gp.macs(graph, np.ones(9)) == 36 * 9 * (15 + 20 + 3 * 16) + 8


def test_the_costliest_branch_of_a_cond_is_counted():
  def fn(v, x):
    y = nn.relu(conv(x, v["a"])).mean((1, 2)) @ v["b"]
    return jax.lax.cond(y.sum() > 0, lambda y: y @ v["c"] @ v["d"], lambda y: y @ v["c"], y)

  graph = gp.trace(fn, weights(a=(1, 1, 3, 5), b=(5, 4), c=(4, 4), d=(4, 4)), X[:1])
  assert gp.macs(graph, np.ones(5)) == 36 * 15 + 20 + 2 * 16


def test_two_inputs_nested_calls_and_channels_first():
  dims = ("NCHW", "OIHW", "NCHW")

  @jax.jit
  def block(kernel, x):
    inner = jax.checkpoint(lambda k, x: nn.gelu(jax.lax.conv_general_dilated(
      x, k, (1, 1), "SAME", dimension_numbers=dims)))  # fmt: skip
    return inner(kernel, x)

  def fn(v, x):
    image, vector = x
    y = block(v["a"], image.transpose(0, 3, 1, 2)) + (vector @ v["embed"])[:, :, None, None]
    y = nn.max_pool(y.transpose(0, 2, 3, 1), (2, 2), (2, 2))
    return nn.relu(y.reshape(len(y), -1) @ v["b"]) @ v["c"]

  vector = np.random.default_rng(4).standard_normal((2, 7)).astype(np.float32)
  variables = weights(a=(5, 3, 3, 3), embed=(7, 5), b=(45, 4), c=(4, 2))
  graph = gp.trace(fn, variables, (X, vector))
  assert [len(group.channels) for group in graph.groups] == [5, 4]
  mask = random_mask(graph, np.random.default_rng(5))
  assert_law(graph, fn, variables, mask, (X, vector))


@pytest.mark.parametrize(
  ("select", "width", "expected"),
  [
    (lambda y: y[..., :4], 4, [0, 1, 2, 3]),
    (lambda y: y[..., 1:5], 4, [0, 1, 2, 3]),
    (lambda y: y[..., 1::2], 3, [0, 1, 2]),
    (lambda y: y[..., ::-1], 6, [5, 4, 3, 2, 1, 0]),
    (lambda y: y[:, 1:, ::2, 3:], 3, [0, 1, 2]),
    (lambda y: y[..., np.array([4, 0, 2])], 3, [2, 0, 1]),
    (lambda y: jnp.take(y, np.array([5, 5, 1]), axis=-1), 3, [1, 1, 0]),
  ],
)
def test_indexing_selects_labels_with_any_batch_size(select, width, expected, tmp_path):
  def fn(v, x):
    return nn.relu(conv(select(nn.relu(conv(x, v["a"]))), v["b"])).mean((1, 2)) @ v["c"]

  variables = weights(a=(1, 1, 3, 6), b=(1, 1, width, 4), c=(4, 2))
  graph = check(fn, variables)
  assert indices(graph, "b", 2) == expected
  mask = random_mask(graph, np.random.default_rng(6))
  small = gp.compact(graph, fn, variables, mask)
  # A saved network has a symbolic batch size, with which JAX implements indexing as a gather.
  gp.save(tmp_path / "net", small, X)
  loaded = gp.load(tmp_path / "net")
  assert_same(loaded.apply(loaded.variables, X[:1]), small.apply(small.variables, X[:1]))


@pytest.mark.parametrize(
  "select", [lambda y: y[..., 2], lambda y: y[..., 2:3].reshape(y.shape[:3])]
)
def test_a_channel_that_is_selected_alone_must_stay(select):
  def fn(v, x):
    y = nn.relu(conv(x, v["a"]))
    y = y * (1 + select(y))[..., None]
    return y.mean((1, 2)) @ v["c"]

  graph = check(fn, weights(a=(1, 1, 3, 4), c=(4, 2)))
  assert indices(graph, "a", 3) == [0, 1, -1, 2]
  assert "selected alone" in graph.frozen["a"]


def test_channels_on_a_batch_axis_of_a_dot_product_are_counted():
  def fn(v, x):
    return jnp.einsum("bnc,nc->bc", nn.relu(x @ v["a"]), v["s"]) @ v["o"]

  x = np.random.default_rng(7).standard_normal((2, 5, 3)).astype(np.float32)
  graph = check(fn, weights(a=(3, 6), s=(5, 6), o=(6, 2)), x=x)
  # A channel needs 3 multiply-adds to be computed at each of 5 positions, 1 at each position to be
  # summed over them, and 2 to be read by the last layer.
  assert gp.macs(graph, np.arange(6) < 2) == 2 * (5 * 3 + 5 + 2)


def test_heads_of_attention_are_counted():
  def fn(v, x):
    q, k, w = [(x @ v[name]).reshape(2, 5, 8, 2) for name in "qkw"]
    scores = nn.softmax(jnp.einsum("bnhd,bmhd->bhnm", q, k))
    return jnp.einsum("bhnm,bmhd->bnhd", scores, w).reshape(2, 5, 16).mean(1) @ v["o"]

  x = np.random.default_rng(7).standard_normal((2, 5, 3)).astype(np.float32)
  graph = check(fn, weights(q=(3, 16), k=(3, 16), w=(3, 16), o=(16, 2)), x=x)
  # Each of the 8 heads has three projections 3 -> 2 of 5 tokens, two products of 5 * 5 * 2, and the
  # output of the mean token 2 -> 2.
  assert gp.macs(graph, np.arange(8) < 2) == 2 * (3 * 5 * 3 * 2 + 2 * 5 * 5 * 2 + 2 * 2)


def test_indices_out_of_bounds_freeze_what_they_select_from():
  def fn(v, x):
    return nn.relu(conv(x, v["a"]))[..., jnp.array([0, 1, 7])].mean((1, 2)) @ v["b"]

  variables = weights(a=(1, 1, 3, 6), b=(3, 4))
  with pytest.raises(gp.InputError, match="no channel of this network can be removed"):
    gp.trace(fn, variables, X)
  # The layer after the selection can still be pruned. In clip mode, index 7 selects channel 5.
  clipped = lambda v, x: jnp.take(nn.relu(conv(x, v["a"])), jnp.array([0, 1, 7]), -1, mode="clip")
  graph = check(lambda v, x: nn.relu(conv(clipped(v, x), v["b"])).mean((1, 2)) @ v["c"],
                weights(a=(1, 1, 3, 6), b=(1, 1, 3, 4), c=(4, 2)))  # fmt: skip
  assert [group.name for group in graph.groups] == ["b"]
  assert "selected by `gather`" in graph.frozen["a"]


@pytest.mark.parametrize(
  "window",
  [
    {"window_strides": (1, 1, 1, 2)},
    {"padding": ((0, 0), (0, 0), (0, 0), (0, 1))},
    {"base_dilation": (1, 1, 1, 2)},
  ],
)
def test_windows_that_skip_or_add_channels_freeze_them(window):
  def fn(v, x):
    y = nn.relu(conv(x, v["a"]))
    options = {"window_dimensions": (1, 2, 2, 1), "window_strides": (1,) * 4, "padding": "VALID"}
    y = nn.relu(jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, **(options | window)))
    return nn.relu(conv(y, v["b"][:, :, : y.shape[-1]])).mean((1, 2)) @ v["c"]

  graph = check(fn, weights(a=(1, 1, 3, 6), b=(1, 1, 11, 4), c=(4, 2)))
  assert [len(group.channels) for group in graph.groups] == [4]
  assert "over channels" in graph.frozen["a"]


@pytest.mark.parametrize("key", [jax.random.key(0), None])
def test_indices_drawn_at_random_freeze_what_they_select_from(key):
  def fn(v, x):
    indices = jax.random.randint(jax.random.key(0) if key is None else key, (6,), 0, 8)
    y = nn.relu(conv(x, v["a"]))[..., indices]
    return nn.relu(conv(y, v["b"])).mean((1, 2)) @ v["c"]

  graph = check(fn, weights(a=(1, 1, 3, 8), b=(1, 1, 6, 4), c=(4, 2)))
  assert [group.name for group in graph.groups] == ["b"]


@pytest.mark.parametrize(
  "along_batch",
  [
    lambda y: jnp.concatenate([jnp.zeros((2, *y.shape[1:])), y], 0)[2:],
    lambda y: jnp.take(y, jnp.arange(y.shape[0]), axis=0),
  ],
)
def test_operations_along_a_symbolic_batch(along_batch, tmp_path):
  fn = lambda v, x: along_batch(nn.relu(x @ v["a"])) @ v["b"]
  variables, x = weights(a=(3, 6), b=(6, 2)), X[:, 0, 0]
  graph = gp.trace(fn, variables, x)
  small = gp.compact(graph, fn, variables, np.arange(6) < 4)
  gp.save(tmp_path / "net", small, x)
  loaded = gp.load(tmp_path / "net")
  for num in (1, 2):
    assert_same(loaded.apply(loaded.variables, x[:num]), small.apply(small.variables, x[:num]))


def test_one_channel_repeated_in_a_branch_that_is_removed():
  def fn(v, x):
    y = nn.relu(conv(x, v["a"]))
    branch = jnp.take(nn.relu(conv(y, v["b"]))[..., :1], jnp.zeros(8, int), axis=-1)
    return nn.relu(y + conv(branch, v["c"])).mean((1, 2)) @ v["d"]

  variables = weights(a=(1, 1, 3, 4), b=(1, 1, 4, 1), c=(1, 1, 8, 4), d=(4, 2))
  graph = gp.trace(fn, variables, X)
  for group in graph.groups:
    if group.has_bypass:
      mask = np.ones(graph.num_channels)
      mask[group.channels] = 0
      assert_law(graph, fn, variables, mask, X, allow_empty=True)


def test_what_is_tied_after_a_split_is_tied_before_it():
  # The 16 outputs of a convolution in 4 groups are 4 channels, because all groups lose the same
  # outputs. Where these outputs are reshaped to (group, output), the second axis has the labels.
  def fn(v, x):
    y = conv(nn.relu(conv(x, v["a"])), v["b"], groups=4)
    y = (y.reshape(*y.shape[:3], 4, 4) * v["s"][None, None, None]).reshape(*y.shape[:3], 16)
    return nn.relu(conv(y, v["c"])).mean((1, 2)) @ v["d"]

  check(fn, weights(a=(1, 1, 3, 16), b=(3, 3, 4, 16), s=(4, 1), c=(1, 1, 16, 5), d=(5, 2)))


@pytest.mark.parametrize("reduce", [jax.lax.pmean, jax.lax.psum, jax.lax.pmax, jax.lax.pmin])
def test_collectives_over_the_examples_are_element_by_element_in_the_channels(reduce):
  # A `vmap` inside the traced function makes the examples an axis of the operands. A `vmap` around
  # the function, or several devices, leave the examples as an axis name of the collective.
  def of_one(v, x):
    h = jnp.tanh(x @ v["a"])
    h = (h - reduce(h, "examples")) @ v["b"]
    return jax.nn.relu(h) @ v["c"]

  variables = weights(a=(3, 6), b=(6, 5), c=(5, 2))
  inside = jax.vmap(of_one, (None, 0), axis_name="examples")
  graph = check(inside, variables, x=X[:, 0, 0])
  assert [len(group.channels) for group in graph.groups] == [6, 5]
  mask = random_mask(graph, np.random.default_rng(3))
  around = lambda fn, *known: jax.vmap(
    lambda x: fn(*known, x[None])[0], axis_name="examples"
  )  # fmt: skip
  batched = lambda v, x: of_one(v, x[0])[None]
  small = gp.compact(graph, batched, variables, mask)
  expected = gp.compact(graph, inside, variables, mask).apply(small.variables, X[:, 0, 0])
  assert_same(around(gp.masked(graph, batched), variables, mask)(X[:, 0, 0]), expected)
  assert_same(around(small.apply, small.variables)(X[:, 0, 0]), expected)


def test_a_collective_over_channels_freezes_them():
  total = jax.vmap(lambda h: jax.lax.psum(h, "channels"), in_axes=1, axis_name="channels")
  fn = lambda v, x: (jnp.tanh(x @ v["a"]) + total(x @ v["b"])[0][:, None]) @ v["c"]
  graph = gp.trace(fn, weights(a=(3, 6), b=(3, 4), c=(6, 2)), X[:, 0, 0])
  assert [len(group.channels) for group in graph.groups] == [6]
  assert "statistics over channels by `psum`" in graph.frozen["b"]
