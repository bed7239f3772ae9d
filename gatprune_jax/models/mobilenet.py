"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381, table 2), in Linen."""

from collections.abc import Callable

from flax import linen as nn
import jax

from gatprune_jax.errors import InputError
from gatprune_jax.models.normalization import batch_norm

# (Expansion, channels, number of blocks, stride of the first block) of each stage.
STAGES = (
  (1, 16, 1, 1),
  (6, 24, 2, 2),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)
STEM_WIDTH, LAST_WIDTH = 32, 1280


def scaled_width(channels: int, multiplier: float) -> int:
  """Returns the product rounded to a multiple of 8, at least 8 and at least 90 % of the product.

  This is the rule of the authors' code (github.com/tensorflow/models, `_make_divisible`).
  """
  product = channels * multiplier
  width = max(8, int(product + 4) // 8 * 8)
  return width if width >= 0.9 * product else width + 8


class InvertedResidual(nn.Module):
  """Expansion, depthwise convolution and projection, added to the input if the shapes agree.

  The projection is linear: no activation follows it.

  Attributes:
    width: channels of the result.
    stride: stride of the depthwise convolution; 1 or 2.
    expansion: channels of the depthwise convolution relative to the input's; 1 for no expansion.
    norm: function that makes the normalisation layer of a given `name`.
  """

  width: int
  stride: int
  expansion: int
  norm: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[B, H, W, C]` to `[B, H / stride, W / stride, width]`."""
    hidden, y = self.expansion * x.shape[-1], x
    if self.expansion != 1:
      y = nn.Conv(hidden, (1, 1), use_bias=False, name="expand")(y)
      y = nn.relu6(self.norm(name="norm_expand")(y))
    y = nn.Conv(
      hidden,
      (3, 3),
      self.stride,
      padding=1,
      feature_group_count=hidden,
      use_bias=False,
      name="depthwise",
    )(y)
    y = nn.relu6(self.norm(name="norm_depthwise")(y))
    y = nn.Conv(self.width, (1, 1), use_bias=False, name="project")(y)
    y = self.norm(name="norm_project")(y)
    return x + y if self.stride == 1 and x.shape[-1] == self.width else y


class MobileNetV2(nn.Module):
  """A stem of stride 2, seven stages of inverted residuals, a 1x1 convolution and a head.

  The head is global pooling and a dense layer. The network maps float `[B, H, W, C]` to logits
  `[B, num_classes]`, for any H and W. The resolution falls by a factor of 32.

  Attributes:
    num_classes: number of logits.
    width_multiplier: factor on the channels of all layers, rounded by `scaled_width`; the last
      convolution never has fewer than 1,280 channels.
    dropout: probability of zeroing an activation before the dense layer; 0.2 in torchvision.
      Unless it is 0, training needs a `dropout` PRNG key, which `train_function` does not pass.
  """

  num_classes: int
  width_multiplier: float = 1.0
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps images to logits; `train` uses the batch's statistics and updates the running ones."""
    norm = batch_norm(train)
    stem = scaled_width(STEM_WIDTH, self.width_multiplier)
    x = nn.Conv(stem, (3, 3), 2, padding=1, use_bias=False, name="stem")(x)
    x = nn.relu6(norm(name="norm_stem")(x))
    for stage, (expansion, channels, num_blocks, first_stride) in enumerate(STAGES):
      width = scaled_width(channels, self.width_multiplier)
      for block in range(num_blocks):
        stride = first_stride if block == 0 else 1
        name = f"stage{stage + 1}_{block}"
        x = InvertedResidual(width, stride, expansion, norm, name=name)(x)
    last = scaled_width(LAST_WIDTH, max(1.0, self.width_multiplier))
    x = nn.Conv(last, (1, 1), use_bias=False, name="last")(x)
    x = nn.relu6(norm(name="norm_last")(x)).mean((1, 2))
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return nn.Dense(self.num_classes, name="head")(x)


def mobilenet_v2(
  num_classes: int, width_multiplier: float = 1.0, dropout: float = 0.0
) -> MobileNetV2:
  """Checks the numbers and returns the module.

  Args:
    num_classes: number of logits.
    width_multiplier: factor on the channels of all layers.
    dropout: probability of zeroing an activation before the dense layer.

  Raises:
    InputError: if the multiplier is not positive, or the dropout is outside [0, 1).
  """
  if not width_multiplier > 0:
    raise InputError(f"width_multiplier {width_multiplier} is not positive: 1.0 is the paper's")
  if not 0 <= dropout < 1:
    raise InputError(f"dropout {dropout} is not a probability in [0, 1)")
  return MobileNetV2(num_classes, width_multiplier, dropout)
