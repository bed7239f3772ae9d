"""Builds networks by name, so that a config can choose a network."""

from collections.abc import Callable
import functools
import inspect
from typing import Any

from flax import linen as nn

from gatprune_jax.errors import InputError
from gatprune_jax.models.densenet import cifar_densenet
from gatprune_jax.models.mobilenet import mobilenet_v2
from gatprune_jax.models.resnet import cifar_resnet
from gatprune_jax.models.resnet_imagenet import imagenet_resnet
from gatprune_jax.models.vgg import vgg_bn

# Name -> constructor(num_classes, **options); the options are those of the constructor.
MODELS: dict[str, Callable[..., nn.Module]] = {
  **{f"resnet{d}": functools.partial(cifar_resnet, d) for d in (8, 20, 32, 44, 56, 110)},
  **{f"resnet{d}": functools.partial(imagenet_resnet, d) for d in (18, 34, 50)},
  **{f"vgg{d}": functools.partial(vgg_bn, d) for d in (16, 19)},
  "mobilenet_v2": mobilenet_v2,
  "densenet40": functools.partial(cifar_densenet, 40),
}


def model(name: str, num_classes: int, **options: Any) -> nn.Module:
  """Returns the module of the given name.

  ResNet-8, -20, -32, -44, -56 and -110, DenseNet-40 and, without `dense_widths`, VGG are the forms
  for small images; ResNet-18, -34, -50 and MobileNetV2 are those for ImageNet.

  Args:
    name: a key of `MODELS`.
    num_classes: number of logits, at least 1.
    **options: options of the constructor, such as `shortcut="B"` or `width_multiplier=0.5`.

  Raises:
    InputError: if the name or an option is unknown, num_classes is below 1, or the constructor
      refuses a value.
  """
  if name not in MODELS:
    raise InputError(f"model {name!r} is unknown: choose one of {', '.join(MODELS)}")
  if num_classes < 1:
    raise InputError(f"num_classes {num_classes} is not positive")
  accepted = list(inspect.signature(MODELS[name]).parameters)
  accepted.remove("num_classes")
  for option in options:
    if option not in accepted:
      raise InputError(f"{name} has no option {option!r}: choose from {', '.join(accepted)}")
  return MODELS[name](num_classes, **options)
