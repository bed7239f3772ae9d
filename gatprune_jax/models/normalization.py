"""The batch normalisation that all the networks share."""

from collections.abc import Callable
import functools

from flax import linen as nn


def batch_norm(train: bool) -> Callable[..., nn.Module]:
  """`BatchNorm` by name, with PyTorch's defaults: Flax's momentum 0.9 is PyTorch's 0.1.

  Args:
    train: normalise with the batch's statistics, instead of the running ones.
  """
  return functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
