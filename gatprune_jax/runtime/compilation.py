"""Compilation with the options under which XLA runs convolutional networks fastest on CPU."""

from collections.abc import Callable
import functools
from typing import Any

import jax

from gatprune_jax.runtime import cores

# Which operations go to the library YNNPACK. By itself XLA gives it convolutions of more than 16
# channels too. It computes one on a single thread, and there in less time than XLA's own, but not
# with the shapes of gradients.
_LIBRARY = "xla_cpu_experimental_ynn_fusion_type"
_PRODUCTS = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
_CONVOLUTIONS = "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
# What all options gain is a row of `experiments.bench`.
_CPU_OPTIONS = {
  _LIBRARY: _PRODUCTS,
  # What an operation leaves is read while it is in the cache.
  "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}


def jit(fn: Callable[..., Any], *, shared: bool = False, **options: Any) -> Callable[..., Any]:
  """`jax.jit(fn, **options)`; on CPU with options of XLA's that this version of it knows.

  Like every function with such options, it cannot be called inside another one that is compiled.

  Args:
    fn: what is compiled.
    shared: whether it is forward passes, shared out over all devices.
    **options: of `jax.jit`.
  """
  on_single_threads = shared and cores.are_devices()
  compiler_options = _compiler_options(jax.default_backend(), on_single_threads)
  return jax.jit(fn, compiler_options=compiler_options, **options)


@functools.cache
def _compiler_options(backend: str, on_single_threads: bool) -> dict[str, str] | None:
  if backend != "cpu":
    return None
  library = {_LIBRARY: f"{_PRODUCTS},{_CONVOLUTIONS}"} if on_single_threads else {}
  return known(**(_CPU_OPTIONS | library))


def known(**options: Any) -> dict[str, Any]:
  """Those options, of `jax.jit`'s `compiler_options`, that this version of XLA takes.

  Many are experimental: another version may not have them, or not with these values.
  """
  return {name: value for name, value in options.items() if _is_known(name, value)}


def _is_known(name: str, value: Any) -> bool:
  try:
    jax.jit(lambda x: x, compiler_options={name: value}).lower(0.0).compile()
  except jax.errors.JaxRuntimeError:
    return False
  return True
