"""Tests of whole architectures beside ResNets: what can be cut, against lists written by hand.

By default they are shallow and narrow; GATPRUNE_SLOW=1 takes the published sizes.
"""

from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from tests.channels.laws import assert_costs, assert_law, random_mask
from tests.conftest import perturbed


class ViTSize(NamedTuple):
  width: int
  heads: int
  hidden: int
  blocks: int


class ViT(nn.Module):
  """A vision transformer with a class token (arXiv 2010.11929)."""

  size: ViTSize

  @nn.compact
  def __call__(self, x):
    width, heads, hidden, blocks = self.size
    x = nn.Conv(width, (16, 16), (16, 16), name="patches")(x).reshape(len(x), -1, width)
    token = self.param("token", nn.initializers.normal(0.1), (1, 1, width))
    x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, width)), x], axis=1)
    x += self.param("positions", nn.initializers.normal(0.1), (1, x.shape[1], width))
    for k in range(blocks):
      y = nn.LayerNorm(name=f"norm{k}_1")(x)
      x += nn.MultiHeadDotProductAttention(heads, name=f"attention{k}")(y, y)
      y = nn.gelu(nn.Dense(hidden, name=f"up{k}")(nn.LayerNorm(name=f"norm{k}_2")(x)))
      x += nn.Dense(width, name=f"down{k}")(y)
    return nn.Dense(10, name="head")(nn.LayerNorm(name="norm")(x)[:, 0])


class ConvNeXtSize(NamedTuple):
  widths: tuple[int, ...]
  blocks: tuple[int, ...]


class ConvNeXt(nn.Module):
  """ConvNeXt with layer scale (arXiv 2201.03545)."""

  size: ConvNeXtSize

  @nn.compact
  def __call__(self, x):
    for stage, (width, blocks) in enumerate(zip(*self.size, strict=True)):
      if stage == 0:
        x = nn.LayerNorm()(nn.Conv(width, (4, 4), (4, 4), name="stem")(x))
      else:
        x = nn.Conv(width, (2, 2), (2, 2), name=f"reduce{stage}")(nn.LayerNorm()(x))
      for k in range(blocks):
        y = nn.LayerNorm()(nn.Conv(width, (7, 7), feature_group_count=width)(x))
        y = nn.gelu(nn.Dense(4 * width, name=f"up{stage}_{k}")(y))
        y = nn.Dense(width, name=f"down{stage}_{k}")(y)
        scale = self.param(f"scale{stage}_{k}", nn.initializers.ones, (width,))
        x += y * scale[None, None, None]
    return nn.Dense(10, name="head")(nn.LayerNorm()(x.mean((1, 2))))


class UNet(nn.Module):
  """A U-Net of a diffusion model: time embedding, group norms, skips and attention in the middle.

  After arXiv 2006.11239, appendix B, with one block for each resolution.
  """

  widths: tuple[int, ...]
  groups: int

  @nn.compact
  def __call__(self, x):
    image, time = x["image"], x["time"]
    angles = time[:, None] * (10.0 ** -jnp.arange(4.0))[None]
    embedding = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    embedding = nn.Dense(4 * self.widths[0], name="time")(embedding)

    def block(x, width, name):
      norm = lambda y, k: nn.silu(nn.GroupNorm(self.groups, name=f"{name}_norm{k}")(y))
      y = nn.Conv(width, (3, 3), name=f"{name}_conv1")(norm(x, 1))
      y += nn.Dense(width, name=f"{name}_time")(nn.silu(embedding))[:, None, None]
      y = nn.Conv(width, (3, 3), name=f"{name}_conv2")(norm(y, 2))
      same = x.shape[-1] == width
      return y + (x if same else nn.Conv(width, (1, 1), name=f"{name}_shortcut")(x))

    x, skips = nn.Conv(self.widths[0], (3, 3), name="in")(image), []
    for k, width in enumerate(self.widths):
      x = block(x, width, f"down{k}")
      skips.append(x)
      x = nn.avg_pool(x, (2, 2), (2, 2))
    shape = x.shape
    y = nn.GroupNorm(self.groups, name="middle_norm")(x).reshape(len(x), -1, shape[-1])
    y = nn.MultiHeadDotProductAttention(1, name="middle")(y, y)
    x += y.reshape(shape)
    for k, width in reversed(list(enumerate(self.widths))):
      x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
      x = block(jnp.concatenate([x, skips[k]], axis=-1), width, f"up{k}")
    return nn.Conv(3, (3, 3), name="out")(nn.silu(nn.GroupNorm(self.groups, name="norm")(x)))


def groups_of(module, x):
  """Returns name and width of every group, after the laws on two masks."""
  variables = perturbed(jax.jit(module.init)(jax.random.key(0), x))
  graph = gp.trace(module.apply, variables, x)
  rng = np.random.default_rng(0)
  for _ in range(2):
    mask = random_mask(graph, rng)
    small = assert_law(graph, module.apply, variables, mask, x, tolerance=1e-4)
    if not isinstance(x, dict):
      assert_costs(graph, small, mask, x)
  short = lambda name: name.removeprefix("params/").removesuffix("/kernel")
  return [(short(group.name), len(group.channels)) for group in graph.groups]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
  "size", [ViTSize(12, 2, 10, 2), pytest.param(ViTSize(384, 6, 1536, 12), marks=SLOW)]
)
def test_vit(size):
  x = np.random.default_rng(1).standard_normal((2, 48, 32, 3)).astype(np.float32)
  expected = [("patches", size.width)]
  for k in range(size.blocks):
    per_head = size.width // size.heads
    expected += [
      (f"attention{k}/query", per_head),
      (f"attention{k}/query/kernel axis 1", size.heads),
      (f"attention{k}/value", per_head),
      (f"up{k}", size.hidden),
    ]
  assert groups_of(ViT(size), x) == expected


@pytest.mark.parametrize(
  "size",
  [
    ConvNeXtSize((4, 6), (1, 2)),
    pytest.param(ConvNeXtSize((96, 192, 384, 768), (3, 3, 9, 3)), marks=SLOW),
  ],
)
def test_convnext(size):
  x = np.random.default_rng(1).standard_normal((2, 64, 64, 3)).astype(np.float32)
  expected = []
  for stage, (width, blocks) in enumerate(zip(*size, strict=True)):
    expected.append(("stem" if stage == 0 else f"reduce{stage}", width))
    expected += [(f"up{stage}_{k}", 4 * width) for k in range(blocks)]
  assert groups_of(ConvNeXt(size), x) == expected


# A group norm ties its groups' channels. Where it reads a stream beside a skip, one of its groups
# may hold channels of both. Of two streams of 16 and 8 channels in 8 groups of 3, the first stream
# has 5 groups of its own and the other has 2; its last channel and the other's first two are one.
SMALL = [
  ("time", 32), ("in", 1), ("in", 2), ("down0_conv1", 8), ("down1_conv1", 8), ("down1_conv2", 4),
  ("middle/query", 16), ("middle/value", 16), ("up1_conv1", 8), ("up1_conv2", 5),
  ("up0_conv1", 8), ("up0_conv2", 8),
]  # fmt: skip
# Of 256 and 128 channels in 32 groups of 12, 21 and 10 groups are of one stream, and one of both.
FULL = [
  ("time", 512), ("in", 1), ("in", 10), ("down0_conv1", 32), ("down1_conv1", 32),
  ("down1_conv2", 16), ("down2_conv1", 32), ("middle/query", 256), ("middle/value", 256),
  ("up2_conv1", 32), ("up2_conv2", 16), ("up1_conv1", 32), ("up1_conv2", 21), ("up0_conv1", 32),
  ("up0_conv2", 32),
]  # fmt: skip


@pytest.mark.parametrize(
  ("widths", "num_groups", "expected"),
  [((8, 16), 8, SMALL), pytest.param((128, 256, 256), 32, FULL, marks=SLOW)],
)
def test_diffusion_u_net(widths, num_groups, expected):
  rng = np.random.default_rng(1)
  x = {
    "image": rng.standard_normal((2, 16, 16, 3)).astype(np.float32),
    "time": rng.uniform(0, 100, 2).astype(np.float32),
  }
  assert groups_of(UNet(widths, num_groups), x) == expected
