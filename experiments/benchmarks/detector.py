"""A small detector of the YOLOv8 kind: C2f blocks, a pyramid of three scales, a head at each."""

from flax import linen as nn
import jax
import jax.numpy as jnp


class Unit(nn.Module):
  """A convolution, batch norm and SiLU."""

  width: int
  kernel: int = 3
  stride: int = 1

  @nn.compact
  def __call__(self, x):
    """Returns the activations of a batch of images."""
    size, stride = (self.kernel,) * 2, (self.stride,) * 2
    x = nn.Conv(self.width, size, stride, padding=self.kernel // 2, use_bias=False)(x)
    return nn.silu(nn.BatchNorm(use_running_average=True)(x))


class C2f(nn.Module):
  """Splits its input, sends one half through residual blocks, and joins all that it has seen."""

  width: int
  blocks: int
  residual: bool = True

  @nn.compact
  def __call__(self, x):
    """Returns the joined parts, at the resolution of the input."""
    parts = jnp.split(Unit(self.width, 1)(x), 2, axis=-1)
    for _ in range(self.blocks):
      y = Unit(self.width // 2)(Unit(self.width // 2)(parts[-1]))
      parts.append(parts[-1] + y if self.residual else y)
    return Unit(self.width, 1)(jnp.concatenate(parts, axis=-1))


class Pyramid(nn.Module):
  """Pools over three sizes of windows by pooling three times with the smallest."""

  width: int

  @nn.compact
  def __call__(self, x):
    """Returns the pooled and joined parts, at the resolution of the input."""
    parts = [Unit(self.width // 2, 1)(x)]
    for _ in range(3):
      parts.append(nn.max_pool(parts[-1], (5, 5), padding="SAME"))
    return Unit(self.width, 1)(jnp.concatenate(parts, axis=-1))


class Detector(nn.Module):
  """Predicts boxes (4 numbers) and scores of classes at strides 8, 16 and 32.

  Attributes:
    width: channels of the first stage; later stages have two, four and eight times as many.
    num_classes: number of classes.
  """

  width: int = 16
  num_classes: int = 10

  @nn.compact
  def __call__(self, x):
    """Returns {stride: {"boxes" [B, h, w, 4], "scores" [B, h, w, num_classes]}}."""
    w = self.width
    x = C2f(2 * w, 1)(Unit(2 * w, stride=2)(Unit(w, stride=2)(x)))
    small = C2f(4 * w, 2)(Unit(4 * w, stride=2)(x))
    middle = C2f(8 * w, 1)(Unit(8 * w, stride=2)(small))
    large = Pyramid(8 * w)(C2f(8 * w, 1)(Unit(8 * w, stride=2)(middle)))

    up = lambda y: jnp.repeat(jnp.repeat(y, 2, axis=1), 2, axis=2)
    middle = C2f(8 * w, 1, False)(jnp.concatenate([up(large), middle], axis=-1))
    small = C2f(4 * w, 1, False)(jnp.concatenate([up(middle), small], axis=-1))
    down = lambda y: Unit(y.shape[-1], stride=2)(y)
    middle = C2f(8 * w, 1, False)(jnp.concatenate([down(small), middle], axis=-1))
    large = C2f(8 * w, 1, False)(jnp.concatenate([down(middle), large], axis=-1))

    def head(y):
      boxes = nn.Conv(4, (1, 1))(Unit(2 * w)(y))
      scores = nn.Conv(self.num_classes, (1, 1))(Unit(2 * w)(y))
      return {"boxes": nn.softplus(boxes), "scores": jax.nn.sigmoid(scores)}

    return {"8": head(small), "16": head(middle), "32": head(large)}
