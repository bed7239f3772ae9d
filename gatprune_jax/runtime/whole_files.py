"""Files that are either complete or absent, and that only the first process writes."""

from collections.abc import Iterator
import contextlib
import os
from typing import IO

from gatprune_jax.runtime.processes import is_first

PARTIAL = ".partial"  # suffix of a file that is being written


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[IO[bytes]]:
  """Opens a file for writing; it appears under its name once it is complete, or not at all.

  What other processes than the first one write is discarded.
  """
  if not is_first():
    with open(os.devnull, "wb") as nowhere:
      yield nowhere
    return
  partial = path + PARTIAL
  try:
    with open(partial, "wb") as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(partial, path)
  except BaseException:
    with contextlib.suppress(OSError):
      os.remove(partial)
    raise
