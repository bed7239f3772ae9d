"""Exports functions as StableHLO, by default for any batch size."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
from typing import Any

import jax
from jax import export

from gatprune_jax.channels.files.locations import without_locations
from gatprune_jax.errors import InputError, first_line


def exported(
  apply: Callable, specs: Sequence[Any], platforms: Sequence[str], batch: int | None
) -> export.Exported:
  """Returns the StableHLO program of a network.

  Args:
    apply: the network.
    specs: shapes and dtypes of its arguments.
    platforms: the kinds of devices that the program can run on.
    batch: number of examples in the specs; None if it is a symbol.

  Raises:
    InputError: if the network does not run at a batch of unknown size.
  """
  known = "pass batch=8, say, for files that take 8 examples, or "
  with without_locations(), any_batch(known) if batch is None else contextlib.nullcontext():
    return export.export(jax.jit(apply), platforms=platforms)(*specs)


@contextlib.contextmanager
def any_batch(instead: str = "") -> Iterator[None]:
  """A context in which a network is traced for any batch size; its errors say what to change.

  Args:
    instead: what else a user can do: the beginning of a sentence that ends with an "or".

  Raises:
    InputError: if the network does not run at a batch of unknown size.
  """
  try:
    yield
  except InputError:
    raise
  except Exception as error:  # a user's function may raise anything for a symbol
    raise InputError(
      "the network does not run at a batch of unknown size "
      f"({type(error).__name__}: {first_line(error)}): {instead}write the network without "
      "numbers that depend on the batch, such as len(x)"
    ) from error
