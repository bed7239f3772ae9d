"""Keeps the paths of this machine's source files out of exported programs."""

from collections.abc import Iterator
import contextlib

import jax

_LIMIT = "jax_traceback_in_locations_limit"


@contextlib.contextmanager
def without_locations() -> Iterator[None]:
  """Within it, JAX writes no stack of source files beside the operations that it lowers."""
  before = getattr(jax.config, _LIMIT)
  jax.config.update(_LIMIT, 0)
  try:
    yield
  finally:
    jax.config.update(_LIMIT, before)
