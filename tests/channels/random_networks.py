"""Random convolutional networks: an architecture as plain data, and the Linen module that it is.

`draw_network(seed)` gives the architecture, which prints as one line a block; `RandomCNN` builds
it. Every kind of block comes up once in every `len(KINDS)` consecutive seeds at least.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

NUM_IMAGES = 4
ACTIVATIONS = {
  "relu": nn.relu,
  "relu6": nn.relu6,
  "swish": nn.swish,
  "gelu": nn.gelu,
  "sigmoid": nn.sigmoid,
  "leaky_relu": nn.leaky_relu,
  "elu": nn.elu,
  "none": lambda x: x,
}


def normalize(x, norm, train):
  """Applies the norm of that name to `[B, H, W, C]`."""
  channels = x.shape[-1]
  if norm == "batch":
    return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
  if norm == "layer":
    return nn.LayerNorm(epsilon=1e-2)(x)
  if norm == "group":
    groups = next(n for n in (3, 2, 1) if channels % n == 0)
    return nn.GroupNorm(groups, epsilon=1e-2)(x)
  if norm == "instance":
    return nn.InstanceNorm(epsilon=1e-2)(x)
  if norm == "group of one":
    return nn.GroupNorm(None, group_size=1, epsilon=1e-2)(x)
  return x


def shuffled(x, groups):
  """ShuffleNet's channel shuffle: reshape, transpose, reshape."""
  split = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
  return jnp.swapaxes(split, -1, -2).reshape(x.shape)


def pooled(x, how, space, train):
  """`[B, features]`: "mean" or "max" over space, or "flatten"."""
  if how == "flatten":
    return x.reshape(x.shape[0], -1)
  if how == "mean":
    return x.mean(space)
  if not train:
    return x.max(space)
  # The gradient of a plain maximum asks which elements equal it; XLA may compute these anew and
  # round them otherwise than those it took the maximum of. That of a pooling window picks them.
  window = tuple(size if axis in space else 1 for axis, size in enumerate(x.shape))
  return lax.reduce_window(x, -jnp.inf, lax.max, window, (1,) * x.ndim, "VALID").squeeze(space)


class Block:
  """Maps `[B, H, W, C]` to `[B, H', W', C']` inside a compact method; prints what it sets."""

  def __repr__(self):
    fields = [(field, getattr(self, field.name)) for field in dataclasses.fields(self)]
    changed = [f"{field.name}={value!r}" for field, value in fields if value != field.default]
    return f"{type(self).__name__}({', '.join(changed)})"


block = dataclasses.dataclass(frozen=True, repr=False)


def run(blocks, x, train):
  for one in blocks:
    x = one(x, train)
  return x


@block
class Conv(Block):
  """A convolution (an equal dense layer, where `dense`), norm and activation."""

  width: int
  kernel: int = 3
  stride: int = 1
  dilation: int = 1
  groups: int = 1
  bias: bool = True
  explicit_padding: bool = False
  dense: bool = False
  norm: str = "none"
  act: str = "none"

  def __call__(self, x, train):
    if self.dense:
      x = nn.Dense(self.width, use_bias=self.bias)(x)
    else:
      x = nn.Conv(
        self.width,
        (self.kernel, self.kernel),
        strides=self.stride,
        padding=self.dilation * (self.kernel // 2) if self.explicit_padding else "SAME",
        kernel_dilation=self.dilation,
        feature_group_count=self.groups,
        use_bias=self.bias,
      )(x)
    return ACTIVATIONS[self.act](normalize(x, self.norm, train))


class _ChannelsFirst(nn.Module):
  width: int

  @nn.compact
  def __call__(self, x):
    init, shape = nn.initializers.lecun_normal(), (self.width, x.shape[1], 3, 3)
    kernel = self.param("oihw_kernel", init, shape)
    bias = self.param("bias", nn.initializers.zeros, (self.width,))
    numbers = ("NCHW", "OIHW", "NCHW")
    x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
    return x + bias[None, :, None, None]


@block
class ChannelsFirst(Block):
  """A convolution over NCHW by an OIHW kernel."""

  width: int
  act: str

  def __call__(self, x, train):
    x = _ChannelsFirst(self.width)(x.transpose(0, 3, 1, 2))
    return ACTIVATIONS[self.act](x).transpose(0, 2, 3, 1)


@block
class Transposed(Block):
  """A transposed convolution that doubles height and width."""

  width: int
  act: str

  def __call__(self, x, train):
    return ACTIVATIONS[self.act](nn.ConvTranspose(self.width, (3, 3), strides=(2, 2))(x))


@block
class Residual(Block):
  """Shortcut "identity", "projection", or "pad": subsampled, with zero channels around it."""

  body: tuple[Block, ...]
  shortcut: str
  width: int
  stride: int = 1
  pad_low: int = 0
  act: str = "relu"

  def __call__(self, x, train):
    y = run(self.body, x, train)
    if self.shortcut == "projection":
      x = Conv(self.width, 1, self.stride, norm="batch")(x, train)
    if self.shortcut == "pad":
      high = self.width - x.shape[-1] - self.pad_low
      x = x[:, :: self.stride, :: self.stride]
      x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (self.pad_low, high)))
    return ACTIVATIONS[self.act](x + y)


@block
class Separable(Block):
  """Depthwise convolution, `multiplier` outputs a channel, then a pointwise one."""

  width: int
  multiplier: int = 1
  stride: int = 1
  norm: str = "none"
  act: str = "relu"

  def __call__(self, x, train):
    channels = x.shape[-1]
    depthwise = Conv(
      channels * self.multiplier, 3, self.stride, groups=channels, norm=self.norm, act=self.act
    )
    return Conv(self.width, 1, norm=self.norm, act=self.act)(depthwise(x, train), train)


@block
class SqueezeExcite(Block):
  """Channels scaled by a gate read off their means; `flat` drops the axes of space on the way."""

  width: int
  gate: str = "sigmoid"
  flat: bool = False

  def __call__(self, x, train):
    y = x.mean((1, 2), keepdims=not self.flat)
    y = nn.Dense(x.shape[-1])(nn.relu(nn.Dense(self.width)(y)))
    y = nn.sigmoid(y) if self.gate == "sigmoid" else jnp.clip(y / 6 + 0.5, 0, 1)
    return x * (y[:, None, None] if self.flat else y)


@block
class Inverted(Block):
  """MobileNetV2's block: expand, depthwise, project; a shortcut where the shapes allow it."""

  width: int
  expansion: int
  stride: int = 1
  squeeze: tuple[Block, ...] = ()

  def __call__(self, x, train):
    hidden = x.shape[-1] * self.expansion
    y = Conv(hidden, 1, bias=False, norm="batch", act="relu6")(x, train)
    y = Conv(hidden, 3, self.stride, groups=hidden, bias=False, norm="batch", act="relu6")(y, train)
    y = Conv(self.width, 1, bias=False, norm="batch")(run(self.squeeze, y, train), train)
    return x + y if x.shape == y.shape else y


@block
class Grouped(Block):
  """A pointwise convolution, a shuffle perhaps, and a grouped convolution."""

  groups: int
  group_in: int
  group_out: int
  stride: int = 1
  shuffle: bool = False
  norm: str = "none"
  act: str = "relu"

  def __call__(self, x, train):
    x = Conv(self.groups * self.group_in, 1, norm=self.norm, act=self.act)(x, train)
    if self.shuffle:
      x = shuffled(x, self.groups)
    grouped = Conv(
      self.groups * self.group_out, 3, self.stride, groups=self.groups, norm=self.norm, act=self.act
    )
    return grouped(x, train)


@block
class Split(Block):
  """ShuffleNetV2's block: one part of the channels passes, the other goes through the body."""

  at: int
  body: tuple[Block, ...]
  by_slices: bool = False
  body_first: bool = False
  shuffle: bool = False

  def __call__(self, x, train):
    if self.by_slices:
      left, right = x[..., : self.at], x[..., self.at :]
    else:
      left, right = jnp.split(x, [self.at], axis=-1)
    right = run(self.body, right, train)
    x = jnp.concatenate([right, left] if self.body_first else [left, right], axis=-1)
    return shuffled(x, 2) if self.shuffle else x


@block
class Gated(Block):
  """A gated linear unit: one half of a convolution's channels gates the other."""

  width: int

  def __call__(self, x, train):
    values, gates = jnp.split(Conv(2 * self.width)(x, train), 2, axis=-1)
    return values * nn.sigmoid(gates)


@block
class Branches(Block):
  """Parallel branches, concatenated (Inception); an empty branch passes its input on."""

  branches: tuple[tuple[Block, ...], ...]

  def __call__(self, x, train):
    return jnp.concatenate([run(branch, x, train) for branch in self.branches], axis=-1)


@block
class DenselyConnected(Block):
  """Each layer reads the concatenation of everything before it."""

  layers: tuple[Block, ...]

  def __call__(self, x, train):
    for layer in self.layers:
      x = jnp.concatenate([x, layer(x, train)], axis=-1)
    return x


@block
class Pool(Block):
  """Max or average pooling."""

  kind: str
  window: int
  stride: int

  def __call__(self, x, train):
    pool = {"max": nn.max_pool, "avg": nn.avg_pool}[self.kind]
    return pool(x, (self.window,) * 2, (self.stride,) * 2, "SAME")


@block
class Shared(Block):
  """One convolution applied twice: its outputs are its inputs."""

  act: str

  def __call__(self, x, train):
    conv = nn.Conv(x.shape[-1], (3, 3))
    for _ in range(2):
      x = ACTIVATIONS[self.act](conv(x))
    return x


class _ChannelScale(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x * self.param("scale", nn.initializers.ones, (1, 1, 1, x.shape[-1]))


@block
class LayerScale(Block):
  """One learned factor a channel."""

  def __call__(self, x, train):
    return _ChannelScale()(x)


@block
class Dropout(Block):
  """In train mode; whole channels at once, or single elements."""

  rate: float
  whole_channels: bool = False

  def __call__(self, x, train):
    dims = (1, 2) if self.whole_channels else ()
    return nn.Dropout(self.rate, broadcast_dims=dims, deterministic=not train)(x)


class _Chain(nn.Module):
  blocks: tuple[Block, ...]
  train: bool

  @nn.compact
  def __call__(self, x):
    return run(self.blocks, x, self.train)


@block
class Call(Block):
  """Blocks in a call of their own, `nn.jit` or `nn.remat`."""

  body: tuple[Block, ...]
  how: str

  def __call__(self, x, train):
    return {"jit": nn.jit, "remat": nn.remat}[self.how](_Chain)(self.body, train)(x)


@dataclasses.dataclass(frozen=True)
class Head:
  """Pools or flattens, hidden dense layers, a dense layer."""

  pool: str  # "mean", "max" or "flatten"
  hidden: tuple[int, ...]
  act: str
  num_classes: int


@dataclasses.dataclass(frozen=True)
class Network:
  """An architecture."""

  image: tuple[int, int, int]  # height, width, channels
  nchw: bool  # the image comes, and the head reads, with channels first
  vector: int  # size of a second input, 0 for none
  vector_use: str  # it is added to the stem's channels, or scales them: "add", "scale"
  blocks: tuple[Block, ...]
  head: Head

  def __str__(self):
    first = f"image {self.image}{' NCHW' if self.nchw else ''}"
    if self.vector:
      first += f", vector [{self.vector}] to {self.vector_use} after the first block"
    return "\n".join(f"  {line}" for line in (first, *self.blocks, self.head))


class RandomCNN(nn.Module):
  """The network as a module; its input is the image, or {"image", "vector"}."""

  network: Network

  @nn.compact
  def __call__(self, inputs, train=False):
    net, head = self.network, self.network.head
    x = inputs["image"] if net.vector else inputs
    x = x.transpose(0, 2, 3, 1) if net.nchw else x
    x = net.blocks[0](x, train)
    if net.vector:
      y = nn.Dense(x.shape[-1])(inputs["vector"])[:, None, None, :]
      x = x + y if net.vector_use == "add" else x * nn.sigmoid(y)
    x = run(net.blocks[1:], x, train)
    x = x.transpose(0, 3, 1, 2) if net.nchw else x
    x = pooled(x, head.pool, (2, 3) if net.nchw else (1, 2), train)
    for width in head.hidden:
      x = ACTIVATIONS[head.act](nn.Dense(width)(x))
    return nn.Dense(head.num_classes)(x)


class Draw:
  """The random choices of one network, as Python values."""

  def __init__(self, seed):
    self.rng = np.random.default_rng(seed)
    self.halvings = 2  # strides left: the images are small
    self.depth = 0  # of blocks within blocks, where there are no strides

  def of(self, *options, weights=None):
    weights = None if weights is None else np.array(weights) / np.sum(weights)
    return options[self.rng.choice(len(options), p=weights)]

  def chance(self, probability):
    return bool(self.rng.random() < probability)

  def between(self, low, high):
    return int(self.rng.integers(low, high + 1))

  def width(self):
    return self.between(2, 9)

  def act(self):
    return self.of(*ACTIVATIONS, weights=[4] + [1] * (len(ACTIVATIONS) - 1))

  def norm(self):
    names = ("batch", "none", "layer", "group", "instance", "group of one")
    return self.of(*names, weights=[8, 5, 1, 1, 1, 1])

  def stride(self):
    if self.depth or not self.halvings or self.chance(0.6):
      return 1
    self.halvings -= 1
    return 2

  def conv(self, width=None, stride=None, **changes):
    """A convolution with everything drawn but what is given."""
    kernel = self.of(1, 3, 3)
    stride = self.stride() if stride is None else stride
    drawn = {
      "width": width or self.width(),
      "kernel": kernel,
      "stride": stride,
      "dilation": self.of(1, 1, 2) if kernel == 3 and stride == 1 else 1,
      "bias": self.chance(0.5),
      "explicit_padding": self.chance(0.3),
      "dense": kernel == 1 and stride == 1 and self.chance(0.3),
      "norm": self.norm(),
      "act": self.act(),
    }
    return Conv(**{**drawn, **changes})

  def chain(self, channels, width=None):
    """One or two blocks without strides that end in a convolution. Returns them, and its width."""
    self.depth += 1
    blocks = ()
    if self.chance(0.5):
      kind = self.of(*KINDS) if self.depth == 1 and self.chance(0.5) else "conv"
      first, channels = KINDS[kind](self, channels)
      blocks = (first,)
    last = self.conv(width)
    self.depth -= 1
    return blocks + (last,), last.width


def _conv(draw, channels):
  conv = draw.conv()
  return conv, conv.width


def _channels_first(draw, channels):
  width = draw.width()
  return ChannelsFirst(width, draw.act()), width


def _transposed(draw, channels):
  if draw.depth:
    return _channels_first(draw, channels)
  width = draw.width()
  draw.halvings += 1
  return Transposed(width, draw.act()), width


def _residual(draw, channels, shortcut=None):
  shortcut = shortcut or draw.of("identity", "projection", "pad")
  stride = 1 if shortcut == "identity" else draw.stride()
  width = {
    "identity": channels,
    "projection": draw.width(),
    "pad": channels + draw.between(0, 3),
  }[shortcut]
  body, _ = draw.chain(channels, width)
  if stride != 1:
    body = (*body[:-1], dataclasses.replace(body[-1], stride=2, dilation=1, dense=False))
  pad_low = draw.between(0, width - channels) if shortcut == "pad" else 0
  return Residual(body, shortcut, width, stride, pad_low, draw.act()), width


def _padded(draw, channels):
  return _residual(draw, channels, "pad")


def _separable(draw, channels):
  width, multiplier = draw.width(), draw.of(1, 1, 2, 3)
  return Separable(width, multiplier, draw.stride(), draw.norm(), draw.act()), width


def _inverted(draw, channels):
  width = channels if draw.chance(0.5) else draw.width()
  squeeze = (_squeeze(draw, channels)[0],) if draw.chance(0.3) else ()
  return Inverted(width, draw.of(2, 3), draw.stride(), squeeze), width


def _grouped(draw, channels):
  groups, group_in, group_out = draw.between(2, 4), draw.between(1, 4), draw.between(1, 4)
  made = Grouped(
    groups, group_in, group_out, draw.stride(), draw.chance(0.5), draw.norm(), draw.act()
  )
  return made, groups * group_out


def _split(draw, channels):
  at = draw.between(1, channels - 1)
  body, width = draw.chain(channels - at)
  shuffle = draw.chance(0.6)
  if shuffle and (at + width) % 2:
    body = (*body[:-1], dataclasses.replace(body[-1], width=width + 1))
    width += 1
  return Split(at, body, draw.chance(0.5), draw.chance(0.3), shuffle), at + width


def _gated(draw, channels):
  width = draw.width()
  return Gated(width), width


def _squeeze(draw, channels):
  gate = draw.of("sigmoid", "hard sigmoid")
  return SqueezeExcite(draw.between(2, 4), gate, draw.chance(0.5)), channels


def _branches(draw, channels):
  if (stride := draw.stride()) == 2:  # Inception's reduction
    conv = draw.conv(stride=2)
    return Branches(((conv,), (Pool("max", 3, 2),))), conv.width + channels
  branches, total = [], 0
  for _ in range(draw.between(2, 3)):
    branch, width = draw.chain(channels)
    if draw.chance(0.3):
      branch, width = (Pool(draw.of("max", "avg"), 3, stride), *branch[-1:]), width
    elif draw.chance(0.2):
      branch, width = (), channels
    branches.append(branch)
    total += width
  return Branches(tuple(branches)), total


def _dense(draw, channels):
  layers = tuple(draw.conv(draw.between(2, 4), stride=1) for _ in range(draw.between(2, 3)))
  return DenselyConnected(layers), channels + sum(layer.width for layer in layers)


def _pool(draw, channels):
  window = draw.of(2, 3)
  return Pool(draw.of("max", "avg"), window, draw.stride()), channels


def _shared(draw, channels):
  return Shared(draw.act()), channels


def _scale(draw, channels):
  return LayerScale(), channels


def _dropout(draw, channels):
  return Dropout(draw.of(0.2, 0.5), draw.chance(0.3)), channels


def _jit(draw, channels):
  body, width = draw.chain(channels)
  return Call(body, "jit"), width


def _remat(draw, channels):
  body, width = draw.chain(channels)
  return Call(body, "remat"), width


# A new kind of block is one entry: its draw, (draw, channels) -> (block, channels of its result).
KINDS: dict[str, Callable[[Draw, int], tuple[Block, int]]] = {
  "conv": _conv,
  "residual": _residual,
  "padded": _padded,
  "separable": _separable,
  "inverted": _inverted,
  "grouped": _grouped,
  "split": _split,
  "squeeze": _squeeze,
  "branches": _branches,
  "dense": _dense,
  "pool": _pool,
  "gated": _gated,
  "shared": _shared,
  "scale": _scale,
  "channels first": _channels_first,
  "transposed": _transposed,
  "dropout": _dropout,
  "jit": _jit,
  "remat": _remat,
}


def draw_network(seed: int) -> Network:
  """The architecture of a seed; it always has a channel that can be removed."""
  draw = Draw(seed)
  stem = draw.conv()
  kinds = [draw.of(*KINDS) for _ in range(draw.between(0, 3))]
  kinds.insert(draw.between(0, len(kinds)), list(KINDS)[seed % len(KINDS)])
  blocks, channels = [stem], stem.width
  for kind in kinds:
    made, channels = KINDS[kind](draw, channels)
    blocks.append(made)
  hidden = tuple(draw.width() for _ in range(draw.of(0, 1, 1, 2)))
  if not hidden:  # a channel between two plain layers can be removed whatever comes before
    blocks.append(draw.conv(norm=draw.of("none", "batch")))
  head = Head(
    draw.of("mean", "mean", "max", "flatten"), hidden, draw.act(), num_classes=draw.between(3, 5)
  )
  return Network(
    image=(draw.between(6, 9), draw.between(6, 9), draw.between(1, 3)),
    nchw=draw.chance(0.2),
    vector=draw.between(2, 4) if draw.chance(0.15) else 0,
    vector_use=draw.of("add", "scale"),
    blocks=tuple(blocks),
    head=head,
  )


def random_variables(shapes: Any, seed: int) -> Any:
  """Weights for these shapes, float64: no two channels alike, statistics not trivial, O(1)."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    noise, name = rng.standard_normal(leaf.shape), path[-1].key
    if "kernel" in name:
      fan_in = np.prod(leaf.shape[1:] if name == "oihw_kernel" else leaf.shape[:-1])
      return noise * np.sqrt(2 / fan_in)
    if name == "var":
      return abs(1 + 0.3 * noise) + 0.1
    return 0.3 * noise + (name == "scale")

  return jax.tree.map_with_path(draw, shapes)


@dataclasses.dataclass(frozen=True)
class Case:
  """A random network with functions, weights, inputs and labels; arrays are float64."""

  network: Network
  eval_fn: Callable
  train_fn: Callable  # -> (logits, updated batch statistics); always the same dropout
  variables: Any
  x: Any
  labels: np.ndarray


def draw_case(seed: int) -> Case:
  """Everything that a seed decides, but the mask."""
  network = draw_network(seed)
  module = RandomCNN(network)
  rng = np.random.default_rng(seed + 1_000_000)
  height, width, channels = network.image
  shape = (channels, height, width) if network.nchw else network.image
  x = rng.standard_normal((NUM_IMAGES, *shape))
  if network.vector:
    x = {"image": x, "vector": rng.standard_normal((NUM_IMAGES, network.vector))}
  key = jax.random.key(seed)
  shapes = jax.eval_shape(module.init, key, x)
  return Case(
    network,
    lambda v, x: module.apply(v, x),
    lambda v, x: module.apply(v, x, train=True, mutable=["batch_stats"], rngs={"dropout": key}),
    random_variables(shapes, seed),
    x,
    rng.integers(0, network.head.num_classes, NUM_IMAGES),
  )
