"""Densely connected networks for small images (Huang et al. 2017, arXiv 1608.06993), in Linen."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from gatprune_jax.errors import InputError
from gatprune_jax.models.normalization import batch_norm
from gatprune_jax.models.sizes import are_widths, refuse_smaller

NUM_STAGES = 3


class CifarDenseNet(nn.Module):
  """A DenseNet of depth 3n + 4 without bottleneck or compression.

  The network is a 3x3 stem, three stages of n layers, global pooling and a dense layer. Each layer
  appends its channels to its input, and the resolution is halved between stages. Normalisation and
  ReLU come before each convolution except the stem. The network maps float `[B, H, W, C]` to logits
  `[B, num_classes]`, with H and W at least 4.

  Attributes:
    depth: 3n + 4; 40 and 100 in the paper.
    num_classes: number of logits.
    growth: channels that a layer appends; 12 and 24 in the paper.
    stem_width: channels of the first convolution; 16 in the paper.
  """

  depth: int
  num_classes: int
  growth: int = 12
  stem_width: int = 16

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps images to logits; `train` uses the batch's statistics and updates the running ones.

    Raises:
      InputError: if a side of the images is shorter than 4 pixels.
    """
    refuse_smaller(x, NUM_STAGES - 1, "DenseNet")
    norm = batch_norm(train)
    x = nn.Conv(self.stem_width, (3, 3), padding=1, use_bias=False, name="stem")(x)
    for stage in range(1, NUM_STAGES + 1):
      for layer in range((self.depth - 4) // NUM_STAGES):
        name = f"{stage}_{layer}"
        y = nn.relu(norm(name=f"norm{name}")(x))
        y = nn.Conv(self.growth, (3, 3), padding=1, use_bias=False, name=f"conv{name}")(y)
        x = jnp.concatenate([x, y], axis=-1)
      if stage < NUM_STAGES:
        x = nn.relu(norm(name=f"norm_transition{stage}")(x))
        x = nn.Conv(x.shape[-1], (1, 1), use_bias=False, name=f"transition{stage}")(x)
        x = nn.avg_pool(x, (2, 2), (2, 2))
    x = nn.relu(norm(name="norm_last")(x))
    return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))


def cifar_densenet(
  depth: int, num_classes: int, growth: int = 12, stem_width: int = 16
) -> CifarDenseNet:
  """Checks the numbers and returns the module.

  Args:
    depth: 3n + 4, at least 7.
    num_classes: number of logits.
    growth: channels that a layer appends.
    stem_width: channels of the first convolution.

  Raises:
    InputError: if depth is not 3n + 4 with n at least 1, or a width is not positive.
  """
  if depth < 7 or (depth - 4) % NUM_STAGES:
    raise InputError(f"depth {depth} is not 3n + 4: choose 7, 10, ..., 40 or 100")
  if not are_widths((growth, stem_width)):
    raise InputError(f"growth {growth} and stem_width {stem_width} must both be positive")
  return CifarDenseNet(depth, num_classes, growth, stem_width)
