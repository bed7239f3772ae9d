"""Residual networks for large images (He et al. 2016, arXiv 1512.03385, table 1), in Linen."""

from collections.abc import Callable, Sequence

from flax import linen as nn
import jax

from gatprune_jax.errors import InputError
from gatprune_jax.models.normalization import batch_norm
from gatprune_jax.models.resnet import ResidualBlock
from gatprune_jax.models.sizes import are_widths

# Depth -> number of blocks in each of the four stages.
STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
EXPANSION = 4


class BottleneckBlock(nn.Module):
  """1x1, 3x3 and 1x1 convolutions, and a shortcut that projects where the shapes differ.

  The stride is on the 3x3 convolution, as in torchvision ("v1.5"). In the paper, the stride is on
  the first 1x1 convolution.

  Attributes:
    width: channels of the first two convolutions; the result has four times as many.
    stride: stride of the 3x3 convolution; 1 or 2.
    norm: function that makes the normalisation layer of a given `name`.
  """

  width: int
  stride: int
  norm: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[B, H, W, C]` to `[B, H / stride, W / stride, 4 width]`."""
    wide = EXPANSION * self.width
    y = nn.Conv(self.width, (1, 1), use_bias=False, name="conv1")(x)
    y = nn.relu(self.norm(name="norm1")(y))
    y = nn.Conv(self.width, (3, 3), self.stride, padding=1, use_bias=False, name="conv2")(y)
    y = nn.relu(self.norm(name="norm2")(y))
    y = nn.Conv(wide, (1, 1), use_bias=False, name="conv3")(y)
    y = self.norm(name="norm3")(y)
    if self.stride != 1 or x.shape[-1] != wide:
      x = nn.Conv(wide, (1, 1), self.stride, use_bias=False, name="project")(x)
      x = self.norm(name="norm_project")(x)
    return nn.relu(x + y)


class ImageNetResNet(nn.Module):
  """A 7x7 stem of stride 2, max pooling, four stages, global pooling and a dense layer.

  The network maps float `[B, H, W, C]` to logits `[B, num_classes]`, for any H and W.

  Attributes:
    depth: 18 or 34 (blocks of two 3x3 convolutions) or 50 (bottleneck blocks).
    num_classes: number of logits.
    widths: widths of the blocks in the four stages; the stem has the first width.
  """

  depth: int
  num_classes: int
  widths: Sequence[int] = (64, 128, 256, 512)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps images to logits; `train` uses the batch's statistics and updates the running ones."""
    norm = batch_norm(train)
    x = nn.Conv(self.widths[0], (7, 7), 2, padding=3, use_bias=False, name="stem")(x)
    x = nn.relu(norm(name="norm_stem")(x))
    x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    for stage, (width, num_blocks) in enumerate(zip(self.widths, STAGES[self.depth], strict=True)):
      for block in range(num_blocks):
        stride = 2 if stage > 0 and block == 0 else 1
        name = f"stage{stage + 1}_{block}"
        if self.depth < 50:
          x = ResidualBlock(width, stride, "B", norm, name=name)(x)
        else:
          x = BottleneckBlock(width, stride, norm, name=name)(x)
    return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))


def imagenet_resnet(
  depth: int, num_classes: int, widths: Sequence[int] = (64, 128, 256, 512)
) -> ImageNetResNet:
  """Checks the numbers and returns the module.

  Args:
    depth: 18, 34 or 50.
    num_classes: number of logits.
    widths: widths of the blocks in the four stages.

  Raises:
    InputError: if the depth is unknown, or the widths are not four positive numbers.
  """
  if depth not in STAGES:
    raise InputError(f"depth {depth} is no ImageNet ResNet here: choose 18, 34 or 50")
  if len(widths) != 4 or not are_widths(widths):
    raise InputError(f"widths {tuple(widths)}: an ImageNet ResNet has four positive stage widths")
  return ImageNetResNet(depth, num_classes, tuple(widths))
