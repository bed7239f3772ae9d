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
# JAX looks at every program before it writes another one, which takes longer with every program. A
# run has some 150, most of them small: together they take seconds to compile.
_MOST = 1000  # programs at the start of a run

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
    _tidy(path)
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
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _users_own() -> str:
  """Returns the default directory, by the XDG base directory specification."""
  caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
  return os.path.join(caches, "gatprune_jax")


def _tidy(path: str) -> None:
  """Removes what killed processes have not written completely, and all but `_MOST` programs.

  JAX writes a program first and the time of its last use second. Without the second file JAX fails
  to find out which programs it can remove, and then keeps no more programs at all.
  """
  inside = lambda name: os.path.join(path, name)
  try:
    with FileLock(inside(_LOCK)).acquire(timeout=_PATIENCE):
      names = set(os.listdir(path))
      programs = {name.removesuffix(_PROGRAM) for name in names if name.endswith(_PROGRAM)}
      finished = {name for name in programs if name + _LAST_USE in names}
      for name in programs - finished:
        os.remove(inside(name + _PROGRAM))
      last_use = lambda name: os.path.getmtime(inside(name + _LAST_USE))
      for name in sorted(finished, key=last_use, reverse=True)[_MOST:]:
        os.remove(inside(name + _PROGRAM))
        os.remove(inside(name + _LAST_USE))
  except Timeout:
    return  # the processes that use the directory need its files
