"""The directory of one run: which run it belongs to, and files that are whole or absent."""

from collections.abc import Iterator
import contextlib
import enum
import importlib.metadata
import json
import os
import platform
from typing import Any

import jax

from gatprune_jax.errors import InputError
from gatprune_jax.runs.lock import LOCK, OWNER, locked
from gatprune_jax.runtime.files import PARTIAL, whole_file
from gatprune_jax.runtime.processes import from_first, is_first

_CONFIG, _RESULT = "config.json", "result.json"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "jraph", "distrax", "orbax-checkpoint", "numpy")


class Status(enum.Enum):
  """What a directory holds."""

  NEW = "new"
  UNFINISHED = "unfinished"
  FINISHED = "finished"


def versions() -> dict[str, str]:
  """Versions of everything that numbers depend on."""
  found = {name: importlib.metadata.version(name) for name in _PACKAGES}
  device = jax.devices()[0]
  found["gatprune_jax"] = importlib.metadata.version("gatprune_jax")
  found["python"] = platform.python_version()
  found["device"] = f"{device.platform} {device.device_kind}"
  return found


def inspect(path: str, experiment: str, config: dict[str, Any]) -> Status:
  """Says whether a run with this config may use the directory. Writes nothing.

  Args:
    path: the directory.
    experiment: which main asks, "prune" or "train".
    config: its resolved config, of JSON types.

  Raises:
    InputError: where the path is a file, or holds another run, or something that is not a run.
  """
  return from_first(lambda: _inspect(path, experiment, config))


def _inspect(path: str, experiment: str, config: dict[str, Any]) -> Status:
  if not os.path.exists(path):
    return Status.NEW
  if not os.path.isdir(path):
    raise InputError(f"workdir {path} is a file: give a directory, or a path that does not exist")
  if not set(os.listdir(path)) - {LOCK, OWNER, _CONFIG + PARTIAL}:
    return Status.NEW
  try:
    with open(os.path.join(path, _CONFIG)) as file:
      stored = json.load(file)
    was, then = stored["experiment"], stored["config"]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(
      f"workdir {path} is not empty and has no readable {_CONFIG}: give an empty directory, or a "
      "path that does not exist"
    ) from error
  if was != experiment:
    raise InputError(
      f"workdir {path} holds a run of experiments.{was}: give experiments.{experiment} another one"
    )
  now = json.loads(json.dumps(config))
  if (difference := _first_difference(then, now)) is not None:
    field, old, new = difference
    raise InputError(
      f"workdir {path} holds another config's run: there, {field} is {old}, here it is {new}: "
      "give another workdir, or the same config"
    )
  finished = os.path.exists(os.path.join(path, _RESULT))
  return Status.FINISHED if finished else Status.UNFINISHED


@contextlib.contextmanager
def claim(path: str, experiment: str, config: dict[str, Any]) -> Iterator[None]:
  """Makes the directory, records whose it is, and keeps other processes out of it.

  Raises:
    InputError: where it cannot be written, or another process runs in it.
  """
  if not is_first():
    yield
    return
  with contextlib.ExitStack() as stack:
    try:
      os.makedirs(path, exist_ok=True)
      stack.enter_context(locked(path))
      _inspect(path, experiment, config)  # another process may have come first
      write_json(
        os.path.join(path, _CONFIG),
        {"experiment": experiment, "config": config, "versions": versions()},
      )
    except OSError as error:
      raise InputError(
        f"workdir {path} cannot be written: {error.strerror}: give a directory that can"
      ) from error
    yield


def write_json(path: str, content: Any) -> None:
  """Writes JSON so that the file is whole or absent."""
  with whole_file(path) as file:
    file.write(json.dumps(content, indent=2).encode() + b"\n")


def write_result(path: str, result: dict[str, Any]) -> None:
  """Writes the run's result; a directory that has one is finished."""
  write_json(os.path.join(path, _RESULT), result)


def read_result(path: str, experiment: str) -> dict[str, Any]:
  """The result of a finished run of that experiment.

  Raises:
    InputError: where there is none.
  """

  def read():
    for name in (_RESULT, _CONFIG):
      if not os.path.exists(os.path.join(path, name)):
        raise InputError(f"{path} is not the workdir of a finished run: it has no {name}")
    if (was := read_json(os.path.join(path, _CONFIG))["experiment"]) != experiment:
      raise InputError(
        f"{path} holds a run of experiments.{was}: give one of experiments.{experiment}"
      )
    return read_json(os.path.join(path, _RESULT))

  return from_first(read)


def read_config(path: str) -> dict[str, Any] | None:
  """The config of the run that a directory holds; None where it says nothing of one."""

  def read():
    place = os.path.join(path, _CONFIG)
    return read_json(place)["config"] if os.path.exists(place) else None

  return from_first(read)


def read_json(path: str) -> Any:
  """What `write_json` wrote.

  Raises:
    InputError: where it cannot be read, or is not JSON any more.
  """
  try:
    with open(path) as file:
      return json.load(file)
  except OSError as error:
    raise InputError(f"{path} cannot be read: {error.strerror}") from error
  except ValueError as error:
    raise InputError(f"{path} is damaged ({error}): remove it and give the same command") from error


def _first_difference(then: Any, now: Any, field: str = "") -> tuple[str, Any, Any] | None:
  """The first field, dotted, in which two configs differ, and its two values."""
  if isinstance(then, dict) and isinstance(now, dict):
    for key in sorted({*then, *now}):
      inner = f"{field}.{key}" if field else key
      if found := _first_difference(then.get(key), now.get(key), inner):
        return found
    return None
  return None if then == now else (field, then, now)
