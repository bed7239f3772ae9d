"""Networks to prune. They know nothing of pruning."""

from gatprune_jax.models.resnet import (
  CifarResNet,
  cifar_resnet,
  eval_function,
  train_function,
)

__all__ = ["CifarResNet", "cifar_resnet", "eval_function", "train_function"]
