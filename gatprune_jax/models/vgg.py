"""VGG with batch normalisation (Simonyan and Zisserman 2015, arXiv 1409.1556), in Linen."""

from collections.abc import Sequence

from flax import linen as nn
import jax

from gatprune_jax.errors import InputError
from gatprune_jax.models.normalization import batch_norm
from gatprune_jax.models.sizes import are_widths, refuse_smaller

# Depth -> number of 3x3 convolutions before each of the five poolings (configurations D and E of
# the paper).
STAGES = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(nn.Module):
  """Five stages of 3x3 convolutions, each followed by max pooling, then dense layers.

  The network maps float `[B, H, W, C]` to logits `[B, num_classes]`, with H and W at least 32. The
  convolutions have a bias although a normalisation follows, as in torchvision, whose parameter
  counts include the bias.

  Attributes:
    depth: 16 or 19.
    num_classes: number of logits.
    dense_widths: widths of the dense layers before the head. (4096, 4096) is the ImageNet form:
      these layers read the feature map, flattened channels first, and so fix H and W. () is the
      usual CIFAR form: global pooling, then the head.
    dropout: probability of zeroing an activation after each dense layer but the last; 0.5 in the
      paper. Unless it is 0, training needs a `dropout` PRNG key, which `train_function` does not
      pass.
    widths: channels of the five stages.
  """

  depth: int
  num_classes: int
  dense_widths: Sequence[int] = ()
  dropout: float = 0.0
  widths: Sequence[int] = (64, 128, 256, 512, 512)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps images to logits; `train` uses the batch's statistics and updates the running ones.

    Raises:
      InputError: if a side of the images is shorter than 32 pixels.
    """
    refuse_smaller(x, len(STAGES[self.depth]), "VGG")
    norm = batch_norm(train)
    for stage, (width, num_convs) in enumerate(zip(self.widths, STAGES[self.depth], strict=True)):
      for layer in range(num_convs):
        name = f"{stage + 1}_{layer}"
        x = nn.Conv(width, (3, 3), padding=1, name=f"conv{name}")(x)
        x = nn.relu(norm(name=f"norm{name}")(x))
      x = nn.max_pool(x, (2, 2), (2, 2))
    # Flattening is channels first, as in PyTorch, so that PyTorch weights can be loaded.
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1) if self.dense_widths else x.mean((1, 2))
    for layer, width in enumerate(self.dense_widths):
      x = nn.relu(nn.Dense(width, name=f"dense{layer + 1}")(x))
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return nn.Dense(self.num_classes, name="head")(x)


def vgg_bn(
  depth: int,
  num_classes: int,
  dense_widths: Sequence[int] = (),
  dropout: float = 0.0,
  widths: Sequence[int] = (64, 128, 256, 512, 512),
) -> VGG:
  """Checks the numbers and returns the module.

  Args:
    depth: 16 or 19.
    num_classes: number of logits.
    dense_widths: widths of the dense layers before the head.
    dropout: probability of zeroing an activation after each dense layer but the last.
    widths: channels of the five stages.

  Raises:
    InputError: if the depth is unknown, a width is not positive, there are not five stage widths,
      or the dropout is outside [0, 1).
  """
  if depth not in STAGES:
    raise InputError(f"depth {depth} is no VGG here: choose 16 or 19")
  if len(widths) != 5 or not are_widths(widths):
    raise InputError(f"widths {tuple(widths)}: a VGG has five positive stage widths")
  if not are_widths(dense_widths):
    raise InputError(f"dense_widths {tuple(dense_widths)}: dense layers have positive widths")
  if not 0 <= dropout < 1:
    raise InputError(f"dropout {dropout} is not a probability in [0, 1)")
  return VGG(depth, num_classes, tuple(dense_widths), dropout, tuple(widths))
