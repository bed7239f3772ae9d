"""A network added from outside: two convolutions and a dense layer."""

import functools

from flax import linen as nn

from gatprune_jax.models import MODELS

NAME = "plain"


class Plain(nn.Module):
  num_classes: int
  width: int = 6

  @nn.compact
  def __call__(self, x, train=False):
    for _ in range(2):
      x = nn.Conv(self.width, (3, 3), strides=2, use_bias=False)(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


def plain(num_classes, width=6):
  return Plain(num_classes, width)


def add(setitem):
  setitem(MODELS, NAME, functools.partial(plain))
