"""Random networks over tokens, each determined by a seed: attention, mixers, norms over channels.

Tokens come from an image, a series or an embedding of integers. Beside them there may be a vector
for each example, and anchors that all examples share.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from tests.channels.random_draws import Draw

NUM_EXAMPLES = 4
VOCABULARY = 7
CLASSES = 3
# A mask may leave one channel, whose variance is zero; a large epsilon keeps its derivative small.
EPSILON = {"epsilon": 0.1}
NORMS = {
  "layer": lambda: nn.LayerNorm(**EPSILON),
  "layer without shift": lambda: nn.LayerNorm(use_bias=False, **EPSILON),
  "rms": lambda: nn.RMSNorm(**EPSILON),
  "group": lambda: nn.GroupNorm(2, **EPSILON),
  "none": lambda: lambda x: x,
}
ACTIVATIONS = {"relu": nn.relu, "gelu": nn.gelu, "silu": nn.silu, "softmax": nn.softmax}


class Attention(nn.Module):
  """Attention of each token to all tokens, or to the anchors."""

  heads: int
  size: int
  crosses: bool

  @nn.compact
  def __call__(self, x, anchors):
    read = x
    if self.crosses:
      read = jnp.broadcast_to(anchors[None], (x.shape[0], *anchors.shape))
    attend = nn.MultiHeadDotProductAttention(self.heads, qkv_features=self.heads * self.size)
    return attend(x, read)


class Fused(nn.Module):
  """Attention whose query, key and value are one dense layer, taken apart in one of three ways."""

  heads: int
  size: int
  way: str

  @nn.compact
  def __call__(self, x, anchors):
    qkv = nn.Dense(3 * self.heads * self.size)(x)
    if self.way == "split":
      parts = jnp.split(qkv, 3, axis=-1)
      q, k, v = (part.reshape(*x.shape[:-1], self.heads, self.size) for part in parts)
    else:
      qkv = qkv.reshape(*x.shape[:-1], 3, self.heads, self.size)
      q, k, v = (
        qkv.transpose(2, 0, 1, 3, 4) if self.way == "unpack" else (qkv[:, :, i] for i in range(3))
      )
    weights = nn.softmax(jnp.einsum("nqhc,nkhc->nhqk", q, k))
    y = jnp.einsum("nhqk,nkhc->nqhc", weights, v)
    return nn.Dense(x.shape[-1])(y.reshape(*x.shape[:-1], self.heads * self.size))


class Perceptron(nn.Module):
  """Two dense layers along channels, the first of them gated or not."""

  hidden: int
  act: str
  gated: bool

  @nn.compact
  def __call__(self, x, anchors):
    y = ACTIVATIONS[self.act](nn.Dense(self.hidden)(x))
    if self.gated:
      y *= nn.Dense(self.hidden, use_bias=False)(x)
    return nn.Dense(x.shape[-1])(y)


class Mixer(nn.Module):
  """Two dense layers along tokens (arXiv 2105.01601)."""

  hidden: int

  @nn.compact
  def __call__(self, x, anchors):
    y = nn.gelu(nn.Dense(self.hidden)(x.swapaxes(1, 2)))
    return nn.Dense(x.shape[1])(y).swapaxes(1, 2)


class LowRank(nn.Module):
  """A dense layer whose kernel has a part of low rank (arXiv 2106.09685)."""

  width: int
  rank: int

  @nn.compact
  def __call__(self, x, anchors):
    init = nn.initializers.lecun_normal()
    kernel = self.param("kernel", init, (x.shape[-1], self.width))
    down = self.param("down_kernel", init, (x.shape[-1], self.rank))
    up = self.param("up_kernel", init, (self.rank, self.width))
    return nn.Dense(x.shape[-1])(nn.relu(x @ (kernel + down @ up)))


class Recurrent(nn.Module):
  """A recurrent layer along tokens."""

  hidden: int
  cell: str

  @nn.compact
  def __call__(self, x, anchors):
    cell = {"gru": nn.GRUCell, "lstm": nn.LSTMCell, "simple": nn.SimpleCell}[self.cell]
    return nn.Dense(x.shape[-1])(nn.RNN(cell(self.hidden, param_dtype=x.dtype))(x))


partial = functools.partial
# A new kind of block is one entry: a function from a draw to a maker of modules that map tokens
# [n, t, c] and anchors [a, b] to tokens of the same shape.
BLOCKS: dict[str, Callable[["Draw"], Callable[[], nn.Module]]] = {
  "attention": lambda draw: partial(Attention, draw.between(1, 3), draw.between(2, 4), False),
  "cross attention": lambda draw: partial(Attention, draw.between(1, 3), draw.between(2, 4), True),
  "fused attention": lambda draw: partial(
    Fused, draw.between(1, 3), draw.between(2, 6), draw.of("split", "unpack", "index")
  ),
  "perceptron": lambda draw: partial(
    Perceptron, draw.between(2, 8), draw.of(*ACTIVATIONS), draw.chance(0.4)
  ),
  "mixer": lambda draw: partial(Mixer, draw.between(2, 8)),
  "low rank": lambda draw: partial(LowRank, draw.between(3, 8), draw.between(1, 3)),
  "recurrent": lambda draw: partial(
    Recurrent, draw.between(3, 6), draw.of("gru", "lstm", "simple")
  ),
}


@dataclasses.dataclass(frozen=True)
class TokenNetwork:
  """What one seed draws."""

  source: str  # "image", "series" or "ids": what is made into tokens
  token: str  # "none", "first" or "last": where a class token is joined to the others
  positions: bool
  width: int
  blocks: tuple[tuple[str, Callable[[], nn.Module]], ...]  # the norm before each block, the block
  residual: bool
  readout: str  # "token", "mean" or "softmax"
  vector: str  # "none", "add" or "join": how a vector of each example is used
  anchors: bool  # whether the logits are products with the anchors


class RandomTokens(nn.Module):
  """The network of one draw."""

  network: TokenNetwork

  @nn.compact
  def __call__(self, x):
    drawn = self.network
    if drawn.source == "image":
      tokens = nn.Conv(drawn.width, (2, 2), (2, 2))(x["image"])
      tokens = tokens.reshape(tokens.shape[0], -1, drawn.width)
    elif drawn.source == "ids":
      tokens = nn.Embed(VOCABULARY, drawn.width)(x["ids"])
    else:
      tokens = nn.Dense(drawn.width)(x["series"])
    if drawn.token != "none":
      token = self.param("token", nn.initializers.normal(1.0), (1, 1, drawn.width))
      parts = [jnp.broadcast_to(token, (tokens.shape[0], 1, drawn.width)), tokens]
      tokens = jnp.concatenate(parts if drawn.token == "first" else parts[::-1], axis=1)
    if drawn.positions:
      shape = (1, *tokens.shape[1:])
      tokens += self.param("positions", nn.initializers.normal(1.0), shape)
    for norm, block in drawn.blocks:
      y = block()(NORMS[norm]()(tokens), x["anchors"])
      tokens = tokens + y if drawn.residual else y
    tokens = nn.LayerNorm(**EPSILON)(tokens)
    y = self._read(tokens)
    if drawn.vector == "add":
      y += nn.Dense(y.shape[-1])(x["vector"])
    elif drawn.vector == "join":
      y = jnp.concatenate([y, x["vector"]], axis=-1)
    if drawn.anchors:
      y = nn.Dense(5)(nn.relu(y)) @ nn.Dense(5)(x["anchors"]).T
    return nn.Dense(CLASSES)(nn.relu(nn.Dense(4)(y)))

  def _read(self, tokens):
    if self.network.readout == "token":
      return tokens[:, 0 if self.network.token == "first" else -1]
    if self.network.readout == "mean":
      return tokens.mean(1)
    return (nn.softmax(tokens, axis=1) * tokens).sum(1)


def draw_tokens(seed: int) -> TokenNetwork:
  """Returns the architecture of a seed; successive seeds go through all kinds of blocks."""
  draw = Draw(seed)
  kinds = [list(BLOCKS)[seed % len(BLOCKS)]] + [draw.of(*BLOCKS) for _ in range(draw.between(0, 2))]
  return TokenNetwork(
    source=draw.of("image", "series", "ids"),
    token=draw.of("none", "first", "last"),
    positions=draw.chance(0.5),
    width=draw.of(4, 6, 8),
    blocks=tuple((draw.of(*NORMS), BLOCKS[kind](draw)) for kind in kinds),
    residual=draw.chance(0.8),
    readout=draw.of("token", "mean", "softmax"),
    vector=draw.of("none", "add", "join"),
    anchors=draw.chance(0.4),
  )


def draw_inputs(network: TokenNetwork, seed: int) -> dict[str, Any]:
  """Returns random inputs of `NUM_EXAMPLES`; "anchors" has no batch axis."""
  normal = np.random.default_rng(seed).standard_normal
  x = {"anchors": normal((5, 3))}
  if network.source == "image":
    x["image"] = normal((NUM_EXAMPLES, 6, 4, 2))
  elif network.source == "ids":
    x["ids"] = np.random.default_rng(seed).integers(0, VOCABULARY, (NUM_EXAMPLES, 6))
  else:
    x["series"] = normal((NUM_EXAMPLES, 6, 3))
  if network.vector != "none":
    x["vector"] = normal((NUM_EXAMPLES, 2))
  return x
