"""The batch normalisation that all the networks share."""

from collections.abc import Callable
import functools

from flax import linen as nn


def batch_norm(train: bool) -> Callable[..., nn.Module]:
  """Returns a constructor of `BatchNorm` with PyTorch's defaults.

  Flax's momentum 0.9 equals PyTorch's momentum 0.1. The constructor takes the layer's `name`.

  Args:
    train: whether to normalise with the batch's statistics instead of the running statistics.
  """
  return functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
