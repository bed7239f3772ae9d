"""The compiled programs that are kept on the disk, so that later runs do not compile them again.

All runs of a user share one directory: a run with another seed has the same programs. JAX finds a
program by a hash of its text, of the compiler's options and version, and of the device. It removes
those that were not used for longest where the directory would become too large, and a lock keeps
processes from reading what another one has not written completely.
"""

import os

from absl import logging
from filelock import FileLock, Timeout
import jax

from gatprune_jax.errors import InputError

OFF = "off"
_LARGEST = 2 * 2**30  # bytes of all programs; those of a search take 5 to 50 MB
# A program that takes less than this is compiled again: there are hundreds of them, and reading one
# would take as long.
_SHORTEST = 0.2  # seconds

# The names that JAX's cache gives to its files.
_LOCK, _PROGRAM, _LAST_USE = ".lockfile", "-cache", "-atime"
_PATIENCE = 10  # seconds to wait for other processes that use the directory


def keep_programs(directory: str | None = None) -> None:
  """Makes JAX keep the programs that it compiles from here on.

  Args:
    directory: where they are kept, or `OFF`. None means `gatprune_jax` in the user's directory of
      caches, unless JAX is configured already, as by JAX_COMPILATION_CACHE_DIR or
      JAX_ENABLE_COMPILATION_CACHE=false.

  Raises:
    InputError: where the given directory cannot be written. Without the user's own directory,
      programs are not kept, and a warning says so.
  """
  if directory == OFF:
    jax.config.update("jax_enable_compilation_cache", False)
    return
  if directory is None and jax.config.jax_compilation_cache_dir:
    return
  path = os.path.abspath(directory or _users_own())
  try:
    os.makedirs(path, mode=0o700, exist_ok=True)
    _remove_unfinished(path)
  except OSError as error:
    if directory is not None:
      raise InputError(
        f"compilation_cache {path} cannot be written ({error.strerror}): give another directory, "
        f"or {OFF!r}"
      ) from error
    logging.warning("%s cannot be written: compiled programs are not kept", path)
    return
  jax.config.update("jax_compilation_cache_dir", path)
  jax.config.update("jax_compilation_cache_max_size", _LARGEST)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", _SHORTEST)


def _users_own() -> str:
  """Returns the default directory, by the XDG base directory specification."""
  caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
  return os.path.join(caches, "gatprune_jax")


def _remove_unfinished(path: str) -> None:
  """Removes the programs that killed processes have not written completely.

  JAX writes a program first and the time of its last use second. Without the second file JAX fails
  to find out which programs it can remove, and then keeps no more programs at all.
  """
  lock = FileLock(os.path.join(path, _LOCK))
  try:
    with lock.acquire(timeout=_PATIENCE):
      names = set(os.listdir(path))
      for name in names:
        if name.endswith(_PROGRAM) and name.removesuffix(_PROGRAM) + _LAST_USE not in names:
          os.remove(os.path.join(path, name))
  except Timeout:
    return  # the processes that use the directory need its files
