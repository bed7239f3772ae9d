"""Networks to prune. Their code does not depend on the pruning code."""

from gatprune_jax.models.apply import DTYPES, eval_function, train_function
from gatprune_jax.models.catalogue import MODELS, model
from gatprune_jax.models.densenet import CifarDenseNet, cifar_densenet
from gatprune_jax.models.mobilenet import MobileNetV2, mobilenet_v2
from gatprune_jax.models.resnet import CifarResNet, cifar_resnet
from gatprune_jax.models.resnet_imagenet import ImageNetResNet, imagenet_resnet
from gatprune_jax.models.torch_file import read_torch
from gatprune_jax.models.torch_names import TORCH_NAMES, ResNetNames
from gatprune_jax.models.torch_weights import load_torch
from gatprune_jax.models.vgg import VGG, vgg_bn

__all__ = [
  "DTYPES",
  "MODELS",
  "TORCH_NAMES",
  "VGG",
  "CifarDenseNet",
  "CifarResNet",
  "ImageNetResNet",
  "MobileNetV2",
  "ResNetNames",
  "cifar_densenet",
  "cifar_resnet",
  "eval_function",
  "imagenet_resnet",
  "load_torch",
  "mobilenet_v2",
  "model",
  "read_torch",
  "train_function",
  "vgg_bn",
]
