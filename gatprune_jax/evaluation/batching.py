"""How much is computed at once: on CPU what its cache holds."""

from collections.abc import Callable
import math
from typing import Any

import jax
from jax.extend import core as jex_core

# Largest activation of all that is computed at once, bytes. On CPU two masks of a network with
# 1.2 MB each were faster together than one by one, two with 2.1 MB slower, and 256 CIFAR images,
# 17 MB, slower at once than in blocks. Accelerators want much work at once and have memory for
# many activations of this size; 1 GiB is not measured.
_CPU_BYTES = 3 * 2**20
_ACCELERATOR_BYTES = 2**30


def images_at_once(bytes_each: int, backend: str) -> int:
  """How many images to evaluate at once, at least one.

  Args:
    bytes_each: of one image's largest activation.
    backend: as `jax.default_backend()` names it.
  """
  return max(1, (_CPU_BYTES if backend == "cpu" else _ACCELERATOR_BYTES) // max(1, bytes_each))


def masks_at_once(bytes_each: int, own_weights: bool, backend: str) -> int:
  """How many masks to score at once, at least one.

  Args:
    bytes_each: of the largest activation, see `largest_activation`.
    own_weights: whether every mask has weights of its own, because steps are taken before scoring.
    backend: as `jax.default_backend()` names it.
  """
  return 1 if own_weights and backend == "cpu" else images_at_once(bytes_each, backend)


def largest_activation(fn: Callable[..., Any], *args: Any) -> int:
  """Bytes of the largest array that `fn(*args)` computes; nothing is run.

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
