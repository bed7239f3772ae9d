"""Checkpoints: trees of arrays on disk.

Orbax writes the arrays. A manifest of checksums shows whether a checkpoint is complete and
unchanged.
"""

from collections.abc import Iterator
import contextlib
import errno
import os
import shutil
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from gatprune_jax.errors import InputError, first_line
from gatprune_jax.runs.manifest import Damaged, seal, sync, verify

_FORMAT = 1  # version of the layout of a checkpoint's directory
_STATE = "state"  # subdirectory that orbax writes
PARTIAL = ".partial"  # suffix of a checkpoint that is being written or removed
_DAMAGED = ".damaged"  # suffix of a checkpoint that was found damaged
_OVERHEAD = 2**18  # bytes that a checkpoint takes in addition to its arrays


def save_variables(path: str, variables: Any) -> None:
  """Writes variables to a new directory, which appears only once it is complete.

  Raises:
    InputError: where the directory exists already, or cannot be written.
  """
  path = os.path.abspath(path)
  if os.path.exists(path):
    raise InputError(f"checkpoint {path} exists: choose another path, or remove it first")
  write_checkpoint(path, flatten(variables), {})


def restore_variables(path: str, like: Any) -> Any:
  """Reads the variables in a checkpoint; `like` gives their tree, shapes and dtypes.

  Raises:
    InputError: where there is no checkpoint, or it is damaged, or it is of another network.
  """
  path = os.path.abspath(path)
  if not os.path.isdir(path):
    raise InputError(f"checkpoint {path} does not exist: give the workdir of experiments.train")
  try:
    verify_checkpoint(path)
  except Damaged as why:
    raise InputError(f"checkpoint {path} is damaged: {why}: train the network again") from why
  return read_checkpoint(path, like)


def write_checkpoint(place: str, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
  """Writes a checkpoint, either completely or not at all.

  Args:
    place: absolute path of its directory, which must not exist.
    arrays: {name: array}, see `flatten`.
    about: further information to save with the arrays, of JSON types.

  Raises:
    InputError: where the checkpoint cannot be written.
  """
  partial = place + PARTIAL
  try:
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    _check_room(partial, arrays)
    with _checkpointer() as checkpointer, _once():
      # Orbax refuses arrays without elements. `read_checkpoint` makes them anew from the shapes of
      # `like`.
      checkpointer.save(os.path.join(partial, _STATE), {k: a for k, a in arrays.items() if a.size})
    seal(partial, {"format": _FORMAT, **about})
    os.rename(partial, place)
    sync(os.path.dirname(place))
  except Exception as error:  # orbax passes on any exception of its storage
    shutil.rmtree(partial, ignore_errors=True)
    why = getattr(error, "strerror", None) or first_line(error)
    raise InputError(
      f"checkpoint {place} cannot be written: {why}: earlier ones are as they were; make room or "
      "the directory writable, and give the same command"
    ) from error


def verify_checkpoint(place: str) -> dict[str, Any]:
  """Checks that every byte of a checkpoint is unchanged; returns `about` of `write_checkpoint`.

  Raises:
    Damaged: where a byte has changed, or a file was added or lost.
    InputError: where the checkpoint has a format that this version does not read.
  """
  about = verify(place)
  if (there := about.pop("format")) != _FORMAT:
    raise InputError(
      f"checkpoint {place} has format {there}, this version reads {_FORMAT}: use the version that "
      "wrote it"
    )
  return about


def read_checkpoint(place: str, like: Any) -> Any:
  """Returns the arrays of a verified checkpoint in the tree of `like`.

  Raises:
    InputError: where names, shapes or dtypes of the arrays are not those of `like`.
  """
  with _checkpointer() as checkpointer:
    path = os.path.join(place, _STATE)
    names = checkpointer.metadata(path).item_metadata.tree
    as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
    arrays = checkpointer.restore(path, restore_args=as_numpy)
  for keys, leaf in jax.tree.leaves_with_path(like):
    if leaf.size == 0:
      arrays.setdefault(_name(keys), np.zeros(leaf.shape, leaf.dtype))
  describe = lambda array: f"{jnp.dtype(array.dtype).name}{tuple(array.shape)}"
  there = {name: describe(array) for name, array in arrays.items()}
  here = {_name(keys): describe(leaf) for keys, leaf in jax.tree.leaves_with_path(like)}
  for name in sorted({*there, *here}):
    if there.get(name) != here.get(name):
      raise InputError(
        f"checkpoint {place} does not fit: {name} is {there.get(name, 'absent')} there and "
        f"{here.get(name, 'absent')} in what is configured: give the config it was made with"
      )
  # The arrays are copied, because a donated array must not share its memory with another one.
  leaves = [jnp.array(arrays[name]) for name in here]
  return jax.tree.unflatten(jax.tree.structure(like), leaves)


def flatten(tree: Any) -> dict[str, np.ndarray]:
  """Returns {path of a leaf in the tree: a copy of its values on the host}."""
  return {_name(keys): np.array(leaf) for keys, leaf in jax.tree.leaves_with_path(tree)}


def set_aside_if_damaged(place: str) -> dict[str, Any] | None:
  """Verifies a checkpoint; renames it with a warning where it is damaged.

  Returns:
    What `verify_checkpoint` returns, or None where the checkpoint is damaged.
  """
  try:
    return verify_checkpoint(place)
  except Damaged as why:
    aside = place + _DAMAGED
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(place, aside)
    logging.warning("checkpoint %s is damaged: %s. It is now %s, and not used", place, why, aside)
    return None


def remove_checkpoint(place: str) -> None:
  """Removes a checkpoint.

  It is renamed first, so that a partly removed checkpoint never has the name of a whole one.
  """
  os.rename(place, place + PARTIAL)
  shutil.rmtree(place + PARTIAL)


def _check_room(directory: str, arrays: dict[str, np.ndarray]) -> None:
  """Raises OSError where the disk has too little space for the arrays.

  This is checked beforehand, because some of orbax's threads print tracebacks when orbax itself
  runs out of space.
  """
  needed = round(1.1 * sum(array.nbytes for array in arrays.values())) + _OVERHEAD
  if (free := shutil.disk_usage(directory).free) < needed:
    raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({free:,} of {needed:,} bytes)")


@contextlib.contextmanager
def _once() -> Iterator[None]:
  """Suppresses the log messages of orbax's threads about their exceptions.

  Orbax also raises these exceptions in the calling thread, so they would be reported twice.
  """
  logger = logging.get_absl_logger()
  not_theirs = lambda record: "futures" not in record.pathname
  logger.addFilter(not_theirs)
  try:
    yield
  finally:
    logger.removeFilter(not_theirs)


def _checkpointer() -> ocp.Checkpointer:
  """Returns an orbax checkpointer that does not wait for other processes.

  Only the first process reads and writes checkpoints.
  """
  alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
  handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
  return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _name(keys: tuple[Any, ...]) -> str:
  return jax.tree_util.keystr(keys, simple=True, separator="/")
