"""Trained variables on disk, through orbax."""

import os
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from gatprune_jax.errors import InputError


def save_variables(path: str, variables: Any) -> None:
  """Writes the variables to a new directory; it appears only once it is complete."""
  path = os.path.abspath(path)
  if os.path.exists(path):
    raise InputError(f"checkpoint {path} exists: choose another path, or remove it first")
  partial = f"{path}.partial"
  shutil.rmtree(partial, ignore_errors=True)
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(partial, jax.device_get(variables))
  os.rename(partial, path)


def restore_variables(path: str, like: Any) -> Any:
  """Reads variables; `like` gives their tree, shapes and dtypes.

  Raises:
    InputError: where there is no checkpoint, or one of another network.
  """
  path = os.path.abspath(path)
  if not os.path.isdir(path):
    raise InputError(f"checkpoint {path} does not exist: give the workdir of experiments.train")
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      stored = checkpointer.metadata(path).item_metadata.tree
      _check_same(path, stored, like)
      return jax.tree.map(jnp.asarray, checkpointer.restore(path, like))
  except (OSError, ValueError, KeyError, AttributeError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(f"checkpoint {path} cannot be read: {str(error).splitlines()[0]}") from error


def _check_same(path: str, stored: Any, like: Any) -> None:
  """Names the first variable that differs in presence or shape."""

  def shapes(tree):
    return {
      jax.tree_util.keystr(keys, simple=True, separator="/"): tuple(leaf.shape)
      for keys, leaf in jax.tree.leaves_with_path(tree)
    }

  there, here = shapes(stored), shapes(like)
  for name in sorted({*there, *here}):
    if there.get(name) != here.get(name):
      raise InputError(
        f"checkpoint {path} is of another network: variable {name} has shape "
        f"{there.get(name, 'none')} there, {here.get(name, 'none')} in the configured network"
      )
