"""Tests of inputs with and without a batch axis: their costs, and the files that hold them."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels.batch import find_batch
from tests.channels.laws import assert_law, random_mask

NORMAL = np.random.default_rng(0).standard_normal
PIXELS = NORMAL((5, 6, 6, 3)).astype(np.float32)


class Detector(nn.Module):
  """Compares an image with anchors, which all images share, at every position."""

  @nn.compact
  def __call__(self, x):
    y = nn.relu(nn.Conv(6, (3, 3))(x["image"]))
    anchors = nn.Dense(6)(nn.relu(nn.Dense(5)(x["anchors"])))
    return jnp.einsum("bhwc,nc->bhwn", y, anchors) * x["scale"]


class Queries(nn.Module):
  """Reads an image with queries that are weights, broadcast to the batch before a dense layer."""

  @nn.compact
  def __call__(self, x):
    memory = nn.relu(nn.Conv(4, (3, 3))(x)).reshape(len(x), -1, 4)
    queries = self.param("queries", nn.initializers.normal(1.0), (2, 3))
    q = nn.Dense(7)(jnp.broadcast_to(queries, (len(x), 2, 3)))
    k, v = nn.Dense(7)(memory), nn.Dense(8)(memory)
    return nn.Dense(5)((q @ k.swapaxes(1, 2) @ v).mean(1))


class Prompted(nn.Module):
  """Puts tokens that are weights before those of the image, as in prompt tuning."""

  @nn.compact
  def __call__(self, x):
    tokens = nn.Dense(6)(x.reshape(len(x), -1, 3))
    prompts = self.param("prompts", nn.initializers.normal(1.0), (2, 6))
    prompts = jnp.broadcast_to(prompts, (len(x), 2, 6))
    return nn.Dense(5)(nn.relu(nn.Dense(7)(jnp.concatenate([prompts, tokens], axis=1))).mean(1))


class Conditioned(nn.Module):
  """Scales features by a network of a vector of weights, which is repeated for each example."""

  @nn.compact
  def __call__(self, x):
    vector = self.param("vector", nn.initializers.normal(1.0), (3,))
    scales = nn.Dense(4)(nn.relu(nn.Dense(6)(jnp.tile(vector, (len(x), 1)))))
    return nn.Dense(5)((nn.Conv(4, (3, 3))(x) * scales[:, None, None]).mean((1, 2)))


def detector(batch):
  x = {"anchors": NORMAL((4, 3)), "image": PIXELS[:batch], "scale": np.float32(2)}
  return Detector(), jax.jit(Detector().init)(jax.random.key(0), x), x


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_product_without_the_batch_is_counted_once(batch):
  net, variables, x = detector(batch)
  graph = gp.trace(net.apply, variables, x)
  # 36 positions of a 3x3 convolution 3 -> 6; 4 anchors through 3 -> 5 -> 6; 36 x 4 products of 6.
  by_hand = 36 * 27 * 6 + 4 * (3 * 5 + 5 * 6) + 36 * 4 * 6
  assert gp.macs(graph, np.ones(graph.num_channels)) == by_hand
  assert_law(graph, net.apply, variables, random_mask(graph, np.random.default_rng(1)), x)


# The convolution 3 -> 4; two queries 3 -> 7; 36 keys 4 -> 7 and values 4 -> 8; 2 x 36 products of 7
# and of 8; the head 8 -> 5.
QUERIES = 36 * 27 * 4 + 2 * 3 * 7 + 36 * 4 * (7 + 8) + 2 * 36 * (7 + 8) + 8 * 5
# 36 pixels 3 -> 6; they and two prompts 6 -> 7; the head 7 -> 5.
PROMPTED = 36 * 3 * 6 + (36 + 2) * 6 * 7 + 7 * 5
# The vector 3 -> 6 -> 4; the convolution 3 -> 4; the head 4 -> 5.
CONDITIONED = 3 * 6 + 6 * 4 + 36 * 27 * 4 + 4 * 5


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(
  ("net", "by_hand"),
  [(Queries(), QUERIES), (Prompted(), PROMPTED), (Conditioned(), CONDITIONED)],
)
def test_weights_that_are_broadcast_to_the_batch_are_counted_for_each_example(net, by_hand, batch):
  variables = jax.jit(net.init)(jax.random.key(0), PIXELS[:1])
  graph = gp.trace(net.apply, variables, PIXELS[:batch])
  assert gp.macs(graph, np.ones(graph.num_channels)) == by_hand
  assert_law(graph, net.apply, variables, random_mask(graph, np.random.default_rng(3)), PIXELS)


def test_a_function_of_one_batch_size_is_traced():
  # The function takes three examples and no others, so that no larger batch can be tried.
  fn = lambda v, x: nn.relu(x.reshape(3, 5) @ v["c"]) @ v["d"] + v["a"] @ v["b"]
  shapes = {"a": (1, 4), "b": (4, 2), "c": (5, 2), "d": (2, 2)}
  variables = {name: NORMAL(shape) for name, shape in shapes.items()}
  graph = gp.trace(fn, variables, np.ones((3, 5)))
  assert gp.macs(graph, np.ones(graph.num_channels)) == 5 * 2 + 2 * 2 + 4 * 2


def test_where_the_batch_is():
  shapes = lambda *sizes: [np.zeros(size) for size in sizes]
  assert find_batch(shapes((4, 3), (4,)), shapes((2, 2))) == (4, (True, True))
  assert find_batch(shapes((4, 3), (2, 3), ()), shapes((2, 2), ())) == (2, (False, True, False))
  for outputs in ((), (3, 3)), ((4, 2), (2, 2)):
    with pytest.raises(gp.InputError, match="first axes of sizes 2, 4, and the outputs do not"):
      find_batch(shapes((4, 3), (2, 3)), shapes(*outputs))


def test_inputs_need_an_axis():
  net, variables, x = detector(1)
  with pytest.raises(gp.InputError, match="x must be an array"):
    gp.trace(lambda v, s: net.apply(v, {**x, "scale": s}), variables, np.float32(1))


def test_a_saved_network_takes_any_batch_beside_an_input_without_one(tmp_path):
  net, variables, x = detector(2)
  graph = gp.trace(net.apply, variables, x)
  small = gp.compact(graph, net.apply, variables, random_mask(graph, np.random.default_rng(2)))
  gp.save(tmp_path / "net", small, x)
  loaded = gp.load(tmp_path / "net")
  for batch in (1, 3):
    given = {**x, "image": PIXELS[:batch]}
    np.testing.assert_allclose(
      loaded.apply(loaded.variables, given), small.apply(small.variables, given), rtol=1e-5,
      atol=1e-5,
    )  # fmt: skip
  gp.export_stablehlo(tmp_path / "net.mlirbc", small, x, batch=3)


class Frames(nn.Module):
  """Convolves the frames of a video one by one: the batch is folded with the frames, and back."""

  @nn.compact
  def __call__(self, x):
    batch, frames = x.shape[:2]
    y = nn.relu(nn.Conv(6, (3, 3))(x.reshape(batch * frames, *x.shape[2:])))
    y = nn.relu(nn.Conv(5, (3, 3))(y)).mean((1, 2))
    return nn.Dense(4)(y.reshape(batch, frames, -1).mean(1))


class Views(nn.Module):
  """Takes the largest features over several views of an object, which come before the batch."""

  @nn.compact
  def __call__(self, x):
    views = jnp.moveaxis(x, 1, 0).reshape(-1, *x.shape[2:])
    y = nn.relu(nn.Conv(6, (3, 3))(views)).mean((1, 2))
    return nn.Dense(4)(nn.relu(nn.Dense(5)(y)).reshape(x.shape[1], -1, 5).max(0))


class LeadingAxes(nn.Module):
  """Leaves it to Linen's convolution to fold the two leading axes of a video."""

  @nn.compact
  def __call__(self, x):
    y = nn.relu(nn.Conv(6, (3, 3))(x))
    y = nn.relu(nn.Conv(5, (3, 3), strides=2)(y))
    return nn.Dense(4)(y.mean((1, 2, 3)))


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("net", [Frames(), Views(), LeadingAxes()])
def test_a_batch_that_is_folded_into_another_axis_is_saved(net, batch, tmp_path):
  x = NORMAL((2, 3, 5, 5, 2)).astype(np.float32)
  variables = jax.jit(net.init)(jax.random.key(0), x)
  graph = gp.trace(net.apply, variables, x)
  mask = random_mask(graph, np.random.default_rng(2))
  small = assert_law(graph, net.apply, variables, mask, x)
  gp.save(tmp_path / "net", small, x, batch)
  loaded = gp.load(tmp_path / "net")
  for num in (1, 2):
    if batch in (None, num):
      expected = small.apply(small.variables, x[:num])
      np.testing.assert_allclose(loaded.apply(loaded.variables, x[:num]), expected, rtol=1e-5)
    else:
      with pytest.raises(ValueError, match="shape"):
        loaded.apply(loaded.variables, x[:num])
  with pytest.raises(gp.InputError, match="batch 0: an exported program needs a positive one"):
    gp.save(tmp_path / "other", small, x, 0)


def test_a_network_that_needs_the_number_of_examples_is_saved_for_one_number(tmp_path):
  fn = lambda v, x: nn.relu(x.reshape(len(x), -1) @ v["a"]) @ v["b"]
  variables = {"a": NORMAL((4, 3)), "b": NORMAL((3, 2))}
  x = NORMAL((2, 2, 2)).astype(np.float32)
  small = gp.compact(gp.trace(fn, variables, x), fn, variables, np.array([1, 0, 1]))
  for save in (gp.save, gp.export_stablehlo):
    path = tmp_path / save.__name__
    with pytest.raises(gp.InputError, match="does not run at a batch of unknown size"):
      save(path, small, x)
    assert not path.exists()
    save(path, small, x, batch=2)
  loaded = gp.load(tmp_path / "save")
  np.testing.assert_allclose(
    loaded.apply(loaded.variables, x), small.apply(small.variables, x), rtol=1e-6
  )
