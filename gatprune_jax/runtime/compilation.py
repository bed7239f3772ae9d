"""Compilation with the options under which XLA runs convolutional networks fastest on CPU."""

from collections.abc import Callable
import functools
from typing import Any

import jax

from gatprune_jax.runtime import cores

# This option says which operations XLA hands to the library YNNPACK. By default XLA also hands it
# convolutions of more than 16 channels. YNNPACK computes a convolution on a single thread. On one
# thread it is faster than XLA's own convolution, except with the layouts that JAX gives to the
# convolutions of gradients; `canonical_convolution` gives them the layout of a forward pass.
_LIBRARY = "xla_cpu_experimental_ynn_fusion_type"
_PRODUCTS = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
_CONVOLUTIONS = "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
# `experiments.bench` measures how much time these options save.
_CPU_OPTIONS = {
  _LIBRARY: _PRODUCTS,
  # With this order of operations, the result of one is read while it is still in the cache.
  "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}
# Most of the time in which XLA compiles random numbers goes into the second and third level.
_ONCE_OPTIONS = {"xla_backend_optimization_level": 1}


def jit(fn: Callable[..., Any], *, shared: bool = False, **options: Any) -> Callable[..., Any]:
  """Compiles by `jax.jit(fn, **options)`; on CPU with those XLA options that this version accepts.

  JAX does not allow that a function with such options is called inside another compiled function.

  Args:
    fn: the function to compile.
    shared: whether the function is shared out over all devices, and its convolutions have the
      layouts of forward passes.
    **options: options of `jax.jit`.
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


def call_once(fn: Callable[..., Any], *args: Any) -> Any:
  """Computes `jax.jit(fn)(*args)`; on CPU compiled quickly, because it runs only once."""
  options = known(**_ONCE_OPTIONS) if jax.default_backend() == "cpu" else None
  return jax.jit(fn, compiler_options=options)(*args)


def known(**options: Any) -> dict[str, Any]:
  """Returns those of the given `compiler_options` of `jax.jit` that this version of XLA accepts.

  Many of these options are experimental, so another version may lack them or accept other values.
  """
  return {name: value for name, value in options.items() if _is_known(name, value)}


def _is_known(name: str, value: Any) -> bool:
  try:
    jax.jit(lambda x: x, compiler_options={name: value}).lower(0.0).compile()
  except jax.errors.JaxRuntimeError:
    return False
  return True
