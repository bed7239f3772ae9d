"""A network as two pure functions, one for evaluation and one for training."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax


def eval_function(module: nn.Module) -> Callable[[Any, jax.Array], jax.Array]:
  """`apply(variables, x) -> logits`, batch normalisation with running statistics."""
  return lambda variables, x: module.apply(variables, x)


def train_function(module: nn.Module) -> Callable[[Any, jax.Array], tuple[jax.Array, Any]]:
  """`apply(variables, x) -> (logits, {"batch_stats": ...})`, with the batch's statistics."""
  return lambda variables, x: module.apply(variables, x, train=True, mutable=["batch_stats"])
