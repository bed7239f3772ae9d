"""Compilation with the options under which XLA runs convolutional networks fastest on CPU."""

from collections.abc import Callable
import functools
from typing import Any

import jax

# What both gain is a row of `experiments.bench`.
_CPU_OPTIONS = {
  # Which operations go to the library YNNPACK. By itself XLA gives it convolutions of more than 16
  # channels too, where its own are faster.
  "xla_cpu_experimental_ynn_fusion_type": (
    "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
  ),
  # What an operation leaves is read while it is in the cache.
  "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}


def jit(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
  """`jax.jit(fn, **options)`; on CPU with options of XLA's that this version of it knows.

  Like every function with such options, it cannot be called inside another one that is compiled.
  """
  return jax.jit(fn, compiler_options=_compiler_options(jax.default_backend()), **options)


@functools.cache
def _compiler_options(backend: str) -> dict[str, str] | None:
  if backend != "cpu":
    return None
  return {name: value for name, value in _CPU_OPTIONS.items() if _is_known(name, value)}


def _is_known(name: str, value: str) -> bool:
  """Whether XLA takes it; it is experimental, and another version may not."""
  try:
    jax.jit(lambda x: x, compiler_options={name: value}).lower(0.0).compile()
  except jax.errors.JaxRuntimeError:
    return False
  return True
