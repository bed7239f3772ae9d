"""Tests of kinds of networks that people prune, three or more of a kind.

Each kind was a bug report about some tool. The widths that can be cut are worked out by hand.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
import pytest

from tests.channels.rules.test_rules import X, check, conv, weights


def widths(graph):
  return [len(group.channels) for group in graph.groups]


def standardised(kernel):
  """Weight standardisation (arXiv 1903.10520): every filter has mean 0 and variance 1."""
  mean = kernel.mean((0, 1, 2), keepdims=True)
  return (kernel - mean) / jnp.sqrt(kernel.var((0, 1, 2), keepdims=True) + 0.1)


def normalised(kernel):
  """Weight normalisation (arXiv 1602.07868), with gain 1."""
  return kernel / jnp.sqrt((kernel**2).sum((0, 1, 2), keepdims=True) + 0.1)


def quantised(kernel):
  """Fake quantisation with one scale for each filter, and the gradient of the identity."""

  @jax.custom_jvp
  def rounded(x):
    return jnp.round(x)

  rounded.defjvp(lambda primals, tangents: (rounded(*primals), tangents[0]))
  scale = jnp.abs(kernel).max((0, 1, 2), keepdims=True) / 7 + 1e-3
  return rounded(kernel / scale) * scale


def clipped(kernel):
  """Weights clipped at the root mean square of their whole kernel."""
  return jnp.clip(kernel, -jnp.sqrt((kernel**2).mean()), jnp.sqrt((kernel**2).mean()))


@pytest.mark.parametrize("computed", [standardised, normalised, quantised, clipped])
def test_kernels_that_are_computed_from_weights(computed):
  def fn(v, x):
    x = nn.relu(conv(x, computed(v["a"])))
    return nn.relu(conv(x, computed(v["b"]))).mean((1, 2)) @ v["c"]

  graph = check(fn, weights(a=(3, 3, 3, 6), b=(3, 3, 6, 5), c=(5, 2)))
  assert widths(graph) == [6, 5]


def pooled_to_one_pixel(y):
  """The image pooling of DeepLab (arXiv 1706.05587), resized to the image again."""
  return jax.image.resize(y.mean((1, 2), keepdims=True), y.shape, "bilinear")


def pyramid(y):
  """The pyramid of PSPNet (arXiv 1612.01105) with two levels."""
  levels = [nn.avg_pool(y, (size, size), (size, size)) for size in (2, 3)]
  return sum(jax.image.resize(level, y.shape, "bilinear") for level in levels)


def doubled(y):
  """Resizes by nearest neighbours to twice the size, and back by pooling."""
  shape = (y.shape[0], 2 * y.shape[1], 2 * y.shape[2], y.shape[3])
  return nn.avg_pool(jax.image.resize(y, shape, "nearest") ** 2, (2, 2), (2, 2))


@pytest.mark.parametrize("operation", [pooled_to_one_pixel, pyramid, doubled])
def test_images_that_are_resized(operation):
  def fn(v, x):
    y = nn.relu(conv(x, v["a"]))
    y = jnp.concatenate([y, nn.relu(conv(operation(y), v["b"]))], axis=-1)
    return nn.relu(conv(y, v["c"])).mean((1, 2)) @ v["d"]

  shapes = {"a": (3, 3, 3, 6), "b": (1, 1, 6, 4), "c": (1, 1, 10, 5), "d": (5, 2)}
  # Of one example, because the product of the weights of both directions is made once for a batch.
  assert widths(check(fn, weights(**shapes), x=X[:1])) == [6, 4, 5]


def repeated(y, v):
  return jnp.repeat(y, 2, axis=-1) * v["gain"][None, None, None]


def tiled(y, v):
  return jnp.tile(y, (1, 1, 1, 2)) * v["gain"][None, None, None]


def crelu(y, v):
  """Both signs of every channel (arXiv 1603.05201)."""
  return nn.relu(jnp.concatenate([y, -y], axis=-1)) * v["gain"][None, None, None]


@pytest.mark.parametrize("operation", [repeated, tiled, crelu])
def test_channels_that_are_there_twice(operation):
  def fn(v, x):
    return operation(nn.relu(conv(x, v["a"])), v).mean((1, 2)) @ v["b"]

  graph = check(fn, weights(a=(3, 3, 3, 6), gain=(12,), b=(12, 2)))
  assert widths(graph) == [6]
  assert set(graph.groups[0].members) == {("a", 3), ("b", 0), ("gain", 0)}


def selected(branches, v):
  """The selection of SKNet (arXiv 1903.06586): softmax over the branches, for every channel."""
  stacked = jnp.stack(branches)
  gates = jnp.stack([branch.mean((1, 2)) @ v["gate"] for branch in branches])
  return (stacked * nn.softmax(gates, axis=0)[:, :, None, None]).sum(0)


def mixed(branches, v):
  """A mixture of experts with one weight for each example and branch."""
  gates = nn.softmax(branches[0].mean((1, 2)) @ v["router"])
  return jnp.einsum("enhwc,ne->nhwc", jnp.stack(branches), gates)


def largest(branches, v):
  """Maxout over the branches (arXiv 1302.4389)."""
  return jnp.stack(branches, axis=-1).max(-1)


@pytest.mark.parametrize("join", [selected, mixed, largest])
def test_branches_that_are_stacked(join):
  def fn(v, x):
    y = join([nn.relu(conv(x, v["a"])), nn.relu(conv(x, v["b"]))], v)
    return nn.relu(conv(y, v["c"])).mean((1, 2)) @ v["d"]

  shapes = {
    "a": (1, 1, 3, 6), "b": (3, 3, 3, 6), "gate": (6, 6), "router": (6, 2), "c": (1, 1, 6, 5),
    "d": (5, 2),
  }  # fmt: skip
  used = {"selected": {"gate"}, "mixed": {"router"}, "largest": set()}[join.__name__]
  kept = {name: shape for name, shape in shapes.items() if name not in {"gate", "router"} - used}
  assert widths(check(fn, weights(**kept))) == [6, 5]


def ensemble_of_kernels(v, x):
  """Convolutions whose kernels differ between members, whose means are averaged."""
  member = lambda kernel: nn.relu(conv(x, kernel)).mean((1, 2))
  return jax.vmap(member)(v["kernels"]).mean(0)


def ensemble_of_gains(v, x):
  """One convolution with gains for each member, as in BatchEnsemble (arXiv 2002.06715)."""
  gains = v["gains"][:, None, None, None, :]
  return nn.relu(conv(x, v["shared"])[None] * gains).mean((0, 2, 3))


def ensemble_in_turn(v, x):
  """The members of an ensemble, one after the other in a `scan`."""
  step = lambda total, kernel: (total + nn.relu(conv(x, kernel)).mean((1, 2)), None)
  return jax.lax.scan(step, jnp.zeros((len(x), 6)), v["kernels"])[0]


@pytest.mark.parametrize("members", [ensemble_of_kernels, ensemble_of_gains, ensemble_in_turn])
def test_members_of_ensembles_lose_the_same_channels(members):
  shapes = {"kernels": (3, 3, 3, 3, 6), "head": (6, 2)}
  if members is ensemble_of_gains:
    shapes = {"shared": (3, 3, 3, 6), "gains": (3, 6), "head": (6, 2)}
  assert widths(check(lambda v, x: members(v, x) @ v["head"], weights(**shapes))) == [6]


@pytest.mark.parametrize(
  "mark",
  [
    jax.lax.stop_gradient,
    jax.lax.optimization_barrier,
    lambda y: jax.lax.with_sharding_constraint(y, SingleDeviceSharding(jax.devices()[0])),
    jax.named_call(lambda y: y * 2, name="named"),
    jax.checkpoint(lambda y: jnp.sin(y)),
  ],
)  # fmt: skip
def test_marks_and_calls_carry_channels(mark):
  def fn(v, x):
    y = mark(nn.relu(conv(x, v["a"])))
    return nn.relu(conv(y, v["b"])).mean((1, 2)) @ v["c"]

  assert widths(check(fn, weights(a=(1, 1, 3, 6), b=(1, 1, 6, 5), c=(5, 2)))) == [6, 5]


def spatial_gate(y, v):
  """The spatial gate of CBAM (arXiv 1807.06521): mean and maximum over channels at each pixel."""
  told = jnp.stack([y.mean(-1), y.max(-1)], axis=-1)
  return y * nn.sigmoid(conv(told, v["gate"]))


def channel_gate(y, v):
  """A softmax over channels of their means over space."""
  return y * nn.softmax(y.mean((1, 2)))[:, None, None]


def responses(y, v):
  """Local responses (AlexNet's norm), summed over all channels."""
  return y / (1 + (y**2).sum(-1, keepdims=True))


@pytest.mark.parametrize("gate", [spatial_gate, channel_gate, responses])
def test_gates_by_statistics_over_channels(gate):
  def fn(v, x):
    y = gate(nn.relu(conv(x, v["a"])), v)
    return nn.relu(conv(y, v["b"])).mean((1, 2)) @ v["c"]

  shapes = {"a": (1, 1, 3, 6), "b": (1, 1, 6, 5), "c": (5, 2)}
  if gate is spatial_gate:
    shapes["gate"] = (3, 3, 2, 1)
  assert widths(check(fn, weights(**shapes))) == [6, 5]


def unpooled(y):
  """Writes the maxima of windows into a larger image."""
  pooled = nn.max_pool(y, (2, 2), (2, 2))
  return jnp.zeros_like(y).at[:, ::2, ::2].set(pooled)


def pasted(y):
  """Replaces a window by another one."""
  return jax.lax.dynamic_update_slice(y, y[:, 3:5, 3:5] * 2, (0, 1, 1, 0))


def median(y):
  """The median of each channel over space, taken from every pixel."""
  return y - jnp.median(y, axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("operation", [unpooled, pasted, median])
def test_positions_that_are_written_or_sorted(operation):
  def fn(v, x):
    y = operation(nn.relu(conv(x, v["a"])))
    return nn.relu(conv(y, v["b"])).mean((1, 2)) @ v["c"]

  assert widths(check(fn, weights(a=(1, 1, 3, 6), b=(1, 1, 6, 5), c=(5, 2)))) == [6, 5]
