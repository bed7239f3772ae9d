"""Wraps a network as two pure functions, one for evaluation and one for training."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

DTYPES = ("auto", "float32", "bfloat16")


def eval_function(
  module: nn.Module, dtype: str = "float32"
) -> Callable[[Any, jax.Array], jax.Array]:
  """Returns `apply(variables, x) -> logits`, which normalises with the running statistics.

  Args:
    module: the network, called as `module(x)`.
    dtype: one of `DTYPES`: the dtype of parameters and activations during the computation. "auto"
      is bfloat16 on accelerators and float32 on CPU. Variables and logits are float32 in every
      case, as are the means and variances that a normalisation computes.
  """
  return lambda variables, x: _as_float32(module.apply(*_computing(dtype, variables, x)))


def train_function(
  module: nn.Module, dtype: str = "float32"
) -> Callable[[Any, jax.Array], tuple[jax.Array, Any]]:
  """Returns `apply(variables, x) -> (logits, {"batch_stats": ...})` for training.

  The returned function normalises with the batch's statistics and returns the updated running
  statistics.

  Args:
    module: the network, called as `module(x, train=True)`.
    dtype: see `eval_function`.
  """

  def apply(variables: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    arguments = _computing(dtype, variables, x)
    logits, updated = module.apply(*arguments, train=True, mutable=["batch_stats"])
    return _as_float32(logits), updated

  return apply


def _computing(dtype: str, variables: Any, x: jax.Array) -> tuple[Any, jax.Array]:
  """Returns the variables and images with parameters and images cast; statistics keep theirs."""
  if dtype == "auto":
    dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  if dtype == "float32":
    return variables, x
  params = jax.tree.map(lambda leaf: leaf.astype(dtype), variables["params"])
  return {**variables, "params": params}, x.astype(dtype)


def _as_float32(logits: jax.Array) -> jax.Array:
  return logits.astype(jnp.float32)
