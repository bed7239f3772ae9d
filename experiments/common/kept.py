"""Parts of an experiment that are measured once and kept in files."""

from collections.abc import Callable
import os
from typing import Any

from gatprune_jax.runs import workdir as runs
from gatprune_jax.runtime.processes import from_first, is_first


def kept(path: str, make: Callable[[], Any]) -> Any:
  """Returns what a JSON file holds; the file is written first if it is missing.

  Args:
    path: path of the file; its directory is made if needed.
    make: returns the content, of JSON types.
  """
  if not from_first(lambda: os.path.exists(path)):
    content = make()
    if is_first():
      os.makedirs(os.path.dirname(path), exist_ok=True)
    runs.write_json(path, content)
  return from_first(lambda: runs.read_json(path))
