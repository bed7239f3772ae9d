"""Files and directories that are either complete or absent."""

from collections.abc import Iterator
import contextlib
import os
import shutil
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


@contextlib.contextmanager
def whole_directory(path: str) -> Iterator[str]:
  """Makes a directory that appears under its name once the context is left without an error.

  Args:
    path: the directory, which does not exist yet.

  Yields:
    The path of the directory while it is written.
  """
  partial = path.rstrip(os.sep) + PARTIAL
  shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
  try:
    os.makedirs(partial)
    yield partial
    os.rename(partial, path)
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    raise
