"""The blocks of random convolutional networks, as plain data, and the Linen module that runs them.

A `Network` prints as one line per block, and `RandomCNN` is the Linen module of a `Network`.
"""

import dataclasses

from flax import linen as nn
from jax import lax
import jax.numpy as jnp

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
  """Applies the norm of the given name to x.

  Args:
    x: `[B, H, W, C]`.
    norm: "batch", "layer", "group", "instance" or "group of one"; any other name is no norm.
    train: whether batch norm uses the statistics of the batch.
  """
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
  """Shuffles channels as ShuffleNet does: reshape, transpose, reshape."""
  split = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
  return jnp.swapaxes(split, -1, -2).reshape(x.shape)


def pooled(x, how, space, train):
  """Returns x pooled or flattened, `[B, features]`.

  Args:
    x: `[B, H, W, C]` or `[B, C, H, W]`.
    how: "mean" or "max" over space, or "flatten".
    space: the two axes of space.
    train: whether the result has to have a well-defined gradient.
  """
  if how == "flatten":
    return x.reshape(x.shape[0], -1)
  if how == "mean":
    return x.mean(space)
  if not train:
    return x.max(space)
  # The gradient of a plain maximum compares the elements with the maximum. XLA may compute the
  # elements anew and round them differently from those that it took the maximum of, so that no
  # element equals the maximum. The gradient of a pooling window selects the largest element itself.
  window = tuple(size if axis in space else 1 for axis, size in enumerate(x.shape))
  return lax.reduce_window(x, -jnp.inf, lax.max, window, (1,) * x.ndim, "VALID").squeeze(space)


class Block:
  """A map from `[B, H, W, C]` to `[B, H', W', C']`, to be called inside a compact method.

  A block prints as its class and the fields that differ from their defaults.
  """

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
  """A convolution, norm and activation; if `dense`, a dense layer takes the convolution's place."""

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
  """A convolution of an NCHW array with an OIHW kernel."""

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
  """A residual block with the shortcut "identity", "projection" or "pad".

  The shortcut "pad" is subsampled and gets channels of zeros before and after its own.
  """

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
  """A depthwise convolution with `multiplier` outputs per channel, then a pointwise convolution."""

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
  """Squeeze-and-excitation: a gate computed from the channels' means scales the channels.

  With `flat`, the means have no axes of space.
  """

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
  """MobileNetV2's block: expand, depthwise, project, with a shortcut where the shapes allow it."""

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
  """A pointwise convolution, an optional channel shuffle, and a grouped convolution."""

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
  """ShuffleNetV2's block: the first `at` channels pass unchanged, the rest enters the body."""

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
  """A gated linear unit: one half of a convolution's channels gates the other half."""

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
  """Layers that each read the concatenation of the block's input and all earlier outputs."""

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
  """One convolution applied twice, so that its output channels are also its input channels."""

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
  """One learned factor per channel."""

  def __call__(self, x, train):
    return _ChannelScale()(x)


@block
class Dropout(Block):
  """Dropout in train mode, of whole channels or of single elements."""

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
  """Blocks wrapped in `nn.jit` or `nn.remat`."""

  body: tuple[Block, ...]
  how: str

  def __call__(self, x, train):
    return {"jit": nn.jit, "remat": nn.remat}[self.how](_Chain)(self.body, train)(x)


@dataclasses.dataclass(frozen=True)
class Head:
  """The head of a network: pooling or flattening, hidden dense layers, and the output layer."""

  pool: str  # "mean", "max" or "flatten"
  hidden: tuple[int, ...]
  act: str
  num_classes: int


@dataclasses.dataclass(frozen=True)
class Network:
  """The architecture of a random network."""

  image: tuple[int, int, int]  # height, width, channels
  nchw: bool  # the input image and the head's input have channels first
  vector: int  # size of a second input; 0 is no second input
  vector_use: str  # "add": the vector is added to the stem's channels; "scale": scales them
  blocks: tuple[Block, ...]
  head: Head

  def __str__(self):
    first = f"image {self.image}{' NCHW' if self.nchw else ''}"
    if self.vector:
      first += f", vector [{self.vector}] to {self.vector_use} after the first block"
    return "\n".join(f"  {line}" for line in (first, *self.blocks, self.head))


class RandomCNN(nn.Module):
  """A `Network` as a module; its input is the image, or a dict of "image" and "vector"."""

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
