"""How many images or masks are computed at once.

On CPU, the images or masks computed at once are so few that their activations fit into the cache.
"""

from collections.abc import Callable
import math
from typing import Any

import jax
from jax.extend import core as jex_core

# The largest activation of all images or masks that are computed at once, in bytes. On CPU, two
# masks of a network with 1.2 MB each were faster together than one by one, and two masks with
# 2.1 MB each were slower together. 256 CIFAR images, 17 MB, were slower at once than in blocks.
# Accelerators are fast with much work at once, and have memory for many activations of this size;
# the value of 1 GiB was not chosen by measurement.
_CPU_BYTES = 3 * 2**20
_ACCELERATOR_BYTES = 2**30


def images_at_once(bytes_each: int, backend: str) -> int:
  """Returns how many images to evaluate at once, at least one.

  Args:
    bytes_each: size of one image's largest activation, in bytes.
    backend: name of the backend, as returned by `jax.default_backend()`.
  """
  return max(1, (_CPU_BYTES if backend == "cpu" else _ACCELERATOR_BYTES) // max(1, bytes_each))


def masks_at_once(bytes_each: int, own_weights: bool, backend: str) -> int:
  """Returns how many masks to score at once, at least one.

  Args:
    bytes_each: size of one mask's largest activation, in bytes; see `largest_activation`.
    own_weights: whether each mask has its own weights, because steps are taken before scoring.
    backend: name of the backend, as returned by `jax.default_backend()`.
  """
  return 1 if own_weights and backend == "cpu" else images_at_once(bytes_each, backend)


def largest_activation(fn: Callable[..., Any], *args: Any) -> int:
  """Returns the size in bytes of the largest array that `fn(*args)` computes, without running fn.

  Args:
    fn: any traceable function.
    *args: arrays or `jax.ShapeDtypeStruct`s.
  """
  return _largest(jax.make_jaxpr(lambda *args: fn(*args))(*args).jaxpr)


def _largest(jaxpr: jex_core.Jaxpr) -> int:
  results = [
    math.prod(var.aval.shape) * var.aval.dtype.itemsize for eqn in jaxpr.eqns for var in eqn.outvars
  ]
  bodies = [
    _largest(getattr(body, "jaxpr", body))
    for eqn in jaxpr.eqns
    for body in jex_core.jaxprs_in_params(eqn.params)
  ]
  return max([1, *results, *bodies])
