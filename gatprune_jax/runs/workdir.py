"""The directory of one run: its config, its result, and the check which run it belongs to.

Files are written so that each one is either complete or absent.
"""

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
from gatprune_jax.runtime.processes import from_first, is_first
from gatprune_jax.runtime.whole_files import PARTIAL, whole_file

_CONFIG, _RESULT = "config.json", "result.json"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "jraph", "distrax", "orbax-checkpoint", "numpy")


class Status(enum.Enum):
  """State of the run in a directory."""

  NEW = "new"
  UNFINISHED = "unfinished"
  FINISHED = "finished"


def versions() -> dict[str, str]:
  """Returns {name: version} of the libraries, Python and the device that results depend on."""
  found = {name: importlib.metadata.version(name) for name in _PACKAGES}
  device = jax.devices()[0]
  found["gatprune_jax"] = importlib.metadata.version("gatprune_jax")
  found["python"] = platform.python_version()
  found["device"] = f"{device.platform} {device.device_kind}"
  return found


def inspect(path: str, experiment: str, config: dict[str, Any]) -> Status:
  """Returns the state of the run in a directory, if it may be used with this config.

  This function writes nothing.

  Args:
    path: path of the directory, which need not exist.
    experiment: name of the main that calls this function, such as "prune" or "train".
    config: the run's config with all fields, of JSON types.

  Raises:
    InputError: where the path is a file, holds another run, or holds something that is not a run.
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
  if (difference := first_difference(then, now)) is not None:
    field, old, new = difference
    raise InputError(
      f"workdir {path} holds another config's run: there, {field} is {old}, here it is {new}: "
      "give another workdir, or the same config"
    )
  finished = os.path.exists(os.path.join(path, _RESULT))
  return Status.FINISHED if finished else Status.UNFINISHED


@contextlib.contextmanager
def claim(path: str, experiment: str, config: dict[str, Any]) -> Iterator[None]:
  """Makes the directory, records which run it belongs to, and keeps other processes out of it.

  Only the first process of a run does this.

  Args:
    path: path of the directory.
    experiment: as in `inspect`.
    config: as in `inspect`.

  Raises:
    InputError: where the directory cannot be written, holds another run, or is in use.
  """
  if not is_first():
    yield
    return
  with contextlib.ExitStack() as stack:
    try:
      os.makedirs(path, exist_ok=True)
      stack.enter_context(locked(path))
      # This is checked again, because the directory may have changed before it was locked.
      _inspect(path, experiment, config)
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
  """Writes JSON to a file that appears only once it is complete."""
  with whole_file(path) as file:
    file.write(json.dumps(content, indent=2).encode() + b"\n")


def write_result(path: str, result: dict[str, Any]) -> None:
  """Writes the run's result; a directory that has a result counts as finished."""
  write_json(os.path.join(path, _RESULT), result)


def read_result(path: str, experiment: str) -> dict[str, Any]:
  """Returns the result of a finished run of the given experiment.

  Raises:
    InputError: where the directory holds no such result, or its files cannot be read.
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


def read_experiment(path: str) -> str:
  """Returns the name of the experiment whose run is in a directory.

  Raises:
    InputError: where the directory holds no run.
  """

  def read():
    place = os.path.join(path, _CONFIG)
    if not os.path.exists(place):
      raise InputError(f"{path} is not the workdir of a run: it has no {_CONFIG}")
    return read_json(place)["experiment"]

  return from_first(read)


def read_config(path: str) -> dict[str, Any] | None:
  """Returns the config of the run in a directory, or None where the directory has no config."""

  def read():
    place = os.path.join(path, _CONFIG)
    return read_json(place)["config"] if os.path.exists(place) else None

  return from_first(read)


def read_json(path: str) -> Any:
  """Reads a file that `write_json` wrote.

  Raises:
    InputError: where the file cannot be read, or is no longer valid JSON.
  """
  try:
    with open(path) as file:
      return json.load(file)
  except OSError as error:
    raise InputError(f"{path} cannot be read: {error.strerror}") from error
  except ValueError as error:
    raise InputError(f"{path} is damaged ({error}): remove it and give the same command") from error


def first_difference(then: Any, now: Any, field: str = "") -> tuple[str, Any, Any] | None:
  """Returns the dotted name of the first field in which two configs differ, and both values.

  Args:
    then: a config, of JSON types.
    now: another one.
    field: dotted name of the field whose values both are; "": they are whole configs.
  """
  if isinstance(then, dict) and isinstance(now, dict):
    for key in sorted({*then, *now}):
      inner = f"{field}.{key}" if field else key
      if found := first_difference(then.get(key), now.get(key), inner):
        return found
    return None
  return None if then == now else (field, then, now)
