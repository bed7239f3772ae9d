"""Random networks, each determined by a seed, with all that a test of the law needs.

Those of `draw_case` are convolutional networks in Linen. Any `len(KINDS)` consecutive seeds
together contain every kind of block at least once.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import numpy as np

from tests.channels import random_containers, random_tokens
from tests.channels.random_blocks import (
  ACTIVATIONS,
  NUM_IMAGES,
  Block,
  Branches,
  Call,
  ChannelsFirst,
  Conv,
  DenselyConnected,
  Dropout,
  Gated,
  Grouped,
  Head,
  Inverted,
  LayerScale,
  Network,
  Pool,
  RandomCNN,
  Residual,
  Separable,
  Shared,
  Split,
  SqueezeExcite,
  Transposed,
)
from tests.channels.random_draws import Draw


class BlockDraw(Draw):
  """The random choices of one convolutional network."""

  def __init__(self, seed):
    super().__init__(seed)
    self.halvings = 2  # strides of 2 that are still allowed, because the images are small
    self.depth = 0  # nesting depth; blocks within blocks have no strides

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
    """Draws a convolution, except for the fields that are given."""
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
    """Draws one or two blocks without strides, and returns them and their output width.

    The last block is a convolution.
    """
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
  if (stride := draw.stride()) == 2:  # like Inception's reduction block
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


# A new kind of block is one entry: a function (draw, input channels) -> (block, output channels).
KINDS: dict[str, Callable[[BlockDraw, int], tuple[Block, int]]] = {
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
  """Returns the architecture of a seed, which always has a channel that can be removed."""
  draw = BlockDraw(seed)
  stem = draw.conv()
  kinds = [draw.of(*KINDS) for _ in range(draw.between(0, 3))]
  kinds.insert(draw.between(0, len(kinds)), list(KINDS)[seed % len(KINDS)])
  blocks, channels = [stem], stem.width
  for kind in kinds:
    made, channels = KINDS[kind](draw, channels)
    blocks.append(made)
  hidden = tuple(draw.width() for _ in range(draw.of(0, 1, 1, 2)))
  # A channel between two plain layers can always be removed, so there must be two at the end.
  if not hidden:
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
  """Returns float64 variables of order one for a tree of shapes.

  No two channels are alike, and the statistics differ from their initial values.
  """
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
  """A random network with functions, variables, inputs and labels; floating arrays are float64."""

  network: Any
  eval_fn: Callable
  train_fn: Callable  # -> (logits, updated batch statistics); the dropout key is fixed
  variables: Any  # a dict with "params" and what training updates
  x: Any  # an array, or a dict, of which "anchors" has no batch axis
  labels: np.ndarray


def draw_case(seed: int) -> Case:
  """Returns the convolutional network in Linen of a seed, with all that belongs to it."""
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


def draw_token_case(seed: int) -> Case:
  """Returns the network over tokens of a seed, which has no statistics that training updates."""
  network = random_tokens.draw_tokens(seed)
  module = random_tokens.RandomTokens(network)
  x = random_tokens.draw_inputs(network, seed)
  shapes = jax.eval_shape(module.init, jax.random.key(seed), x)
  labels = np.random.default_rng(seed).integers(0, random_tokens.CLASSES, NUM_IMAGES)
  train_fn = lambda v, x: (module.apply(v, x), {})
  return Case(network, module.apply, train_fn, random_variables(shapes, seed), x, labels)


def draw_container_case(seed: int) -> Case:
  """Returns the network in NNX or Equinox of a seed."""
  network = random_containers.draw_container(seed)
  eval_fn, train_fn, variables = random_containers.functions(network)
  rng = np.random.default_rng(seed)
  x = rng.standard_normal((NUM_IMAGES, 6, 6, random_containers.CHANNELS))
  labels = rng.integers(0, random_containers.CLASSES, NUM_IMAGES)
  variables = random_containers.randomised(variables, seed)
  return Case(network, eval_fn, train_fn, variables, x, labels)
