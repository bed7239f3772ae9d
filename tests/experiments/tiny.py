"""The smallest network with two groups to prune, for `model.factory`: quick to compile."""

from flax import linen as nn
import jax

import gatprune_jax as gp


class Tiny(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, x, train=False):
    for width in (16, 24):
      x = nn.Conv(width, (3, 3), strides=2, use_bias=False)(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
    return nn.Dense(self.num_classes)(x.mean((1, 2)))


def make(num_classes, image_shape):
  """Returns an untrained network."""
  module = Tiny(num_classes)
  x = jax.numpy.zeros((1, *image_shape))
  return gp.from_linen(module, jax.jit(module.init)(jax.random.key(0), x))
