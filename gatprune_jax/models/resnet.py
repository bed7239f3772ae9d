"""Residual networks for small images (He et al. 2016, arXiv 1512.03385, section 4.2), in Linen."""

from collections.abc import Callable, Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp

from gatprune_jax.errors import InputError
from gatprune_jax.models.normalization import batch_norm
from gatprune_jax.models.sizes import are_widths


class ResidualBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut.

  Attributes:
    width: channels of the result.
    stride: stride of the first convolution; 1 or 2.
    shortcut: form of the shortcut where the shapes differ. "A" subsamples and pads with zero
      channels on both sides; "B" projects by a strided 1x1 convolution.
    norm: function that makes the normalisation layer of a given `name`.
  """

  width: int
  stride: int
  shortcut: str
  norm: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[B, H, W, C]` to `[B, H / stride, W / stride, width]`."""
    conv = lambda name, stride: nn.Conv(
      self.width, (3, 3), strides=stride, padding=1, use_bias=False, name=name
    )
    y = nn.relu(self.norm(name="norm1")(conv("conv1", self.stride)(x)))
    y = self.norm(name="norm2")(conv("conv2", 1)(y))
    if self.stride != 1 or x.shape[-1] != self.width:
      if self.shortcut == "A":
        more = self.width - x.shape[-1]
        x = x[:, :: self.stride, :: self.stride]
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))
      else:
        x = nn.Conv(self.width, (1, 1), self.stride, use_bias=False, name="project")(x)
        x = self.norm(name="norm_project")(x)
    return nn.relu(x + y)


class CifarResNet(nn.Module):
  """A ResNet of depth 6n + 2: a 3x3 stem, three stages of n blocks, pooling and a dense layer.

  The pooling is global. The network maps float `[B, H, W, C]` to logits `[B, num_classes]`, for any
  H and W.

  Attributes:
    depth: 6n + 2; 20, 32, 44, 56 and 110 in the paper.
    num_classes: number of logits.
    widths: channels of the three stages; (16, 32, 64) in the paper.
    shortcut: "A" (zero padding, the paper's choice for CIFAR) or "B" (projection).
  """

  depth: int
  num_classes: int
  widths: Sequence[int] = (16, 32, 64)
  shortcut: str = "A"

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps images to logits; `train` uses the batch's statistics and updates the running ones."""
    norm = batch_norm(train)
    x = nn.Conv(self.widths[0], (3, 3), padding=1, use_bias=False, name="stem")(x)
    x = nn.relu(norm(name="norm_stem")(x))
    for stage, width in enumerate(self.widths):
      for block in range((self.depth - 2) // 6):
        stride = 2 if stage > 0 and block == 0 else 1
        x = ResidualBlock(width, stride, self.shortcut, norm, name=f"stage{stage + 1}_{block}")(x)
    return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))


def cifar_resnet(
  depth: int, num_classes: int, widths: Sequence[int] = (16, 32, 64), shortcut: str = "A"
) -> CifarResNet:
  """Checks the numbers and returns the module.

  Args:
    depth: 6n + 2, at least 8.
    num_classes: number of logits.
    widths: channels of the three stages.
    shortcut: "A" (zero padding) or "B" (projection).

  Raises:
    InputError: if depth is not 6n + 2, the widths are not three positive numbers or shrink under
      shortcut "A", or the shortcut is unknown.
  """
  if depth < 8 or (depth - 2) % 6:
    raise InputError(f"depth {depth} is not 6n + 2: choose 8, 14, 20, 32, 44, 56 or 110")
  if len(widths) != 3 or not are_widths(widths):
    raise InputError(f"widths {tuple(widths)}: a CIFAR ResNet has three positive stage widths")
  if shortcut not in ("A", "B"):
    raise InputError(f"shortcut {shortcut!r} is unknown: choose 'A' (padding) or 'B' (projection)")
  if shortcut == "A" and list(widths) != sorted(widths):
    raise InputError(f"widths {tuple(widths)} shrink: option-A shortcuts can only pad")
  return CifarResNet(depth, num_classes, tuple(widths), shortcut)
