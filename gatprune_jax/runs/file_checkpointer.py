"""Checkpoints of a loop in a directory."""

from collections.abc import Callable, Mapping
from concurrent import futures
import hashlib
import json
import os
import shutil
import time
from typing import Any

from absl import logging
import numpy as np

from gatprune_jax.errors import InputError
from gatprune_jax.runs.checkpoint import (
  PARTIAL,
  flatten,
  read_checkpoint,
  remove_checkpoint,
  set_aside_if_damaged,
  verify_checkpoint,
  write_checkpoint,
)
from gatprune_jax.runs.manifest import Damaged
from gatprune_jax.runtime.preemption import Preempted
from gatprune_jax.runtime.processes import arrays_from_first, from_first, is_first


class FileCheckpointer:
  """A loop's states as checkpoints in one directory, which the first process reads and writes.

  They are numbered in the order in which they were saved; after a roll-back a later one is of an
  earlier step.
  """

  def __init__(
    self,
    path: str,
    config: Mapping[str, Any],
    versions: Mapping[str, str],
    keep: int,
    every: int,
    should_stop: Callable[[int], bool] = lambda step: False,
    on_restore: Callable[[int], None] = lambda step: None,
  ):
    """Writes nothing yet.

    Args:
      path: directory of the checkpoints.
      config: of the run, of JSON types; another one's states are refused.
      versions: of the libraries that numbers depend on. States of another `gatprune_jax` are
        refused; where another library differs, a warning says so.
      keep: how many valid ones are kept.
      every: steps between two that `maybe_save` saves.
      should_stop: asked at every step whether the process has to end.
      on_restore: told the step from which the loop goes on.
    """
    canonical = json.dumps(config, sort_keys=True).encode()
    self._path, self._keep, self._every = os.path.abspath(path), keep, every
    self._config, self._versions = hashlib.sha256(canonical).hexdigest(), dict(versions)
    self._should_stop, self._on_restore = should_stop, on_restore
    self._writer = futures.ThreadPoolExecutor(1, "checkpoint")
    self._writing: futures.Future | None = None
    self._newest: int | None = None  # step saved last
    self._since, self._seconds_before = time.monotonic(), None

  @property
  def seconds(self) -> float:
    """Spent in this loop, by earlier processes too, up to their last checkpoint."""
    return time.monotonic() - self._since + (self._seconds_before or 0.0)

  def restore(self, like: Any, otherwise: int = 0) -> tuple[int, Any] | None:
    """The step and state of the newest valid checkpoint; None where there is none.

    Damaged ones that are newer get another name, with a warning.

    Args:
      like: tree of arrays, or of their shapes and dtypes.
      otherwise: the step from which the loop goes on where there is none.

    Raises:
      InputError: where it is of another config, version or structure.
    """
    self.wait()
    if (found := from_first(self._newest_valid)) is None:
      self._on_restore(otherwise)
      return None
    place, about = found
    state = arrays_from_first(lambda: read_checkpoint(place, like), like)
    if self._seconds_before is None:
      self._seconds_before = about["seconds"]
    self._newest = about["step"]
    self._on_restore(self._newest)
    return self._newest, state

  def maybe_save(
    self, step: int, state: Callable[[], Any], worthy: Callable[[], bool] = lambda: True
  ) -> None:
    """Saves the state where it is time to.

    Args:
      step: how many the loop has done.
      state: gives the state after them, where it is time to; a copy is taken before this returns,
        the rest is done in a thread.
      worthy: whether to go on from this state one day; asked where it is time to.

    Raises:
      Preempted: where the process was asked to stop; the state is saved.
      InputError: where it, or the one before, cannot be written.
    """
    stop = self._should_stop(step)
    if not (stop or step % self._every == 0) or not worthy():
      return
    self.save(step, state())
    if stop:
      self.wait()
      raise Preempted(f"stopped after step {step}, which is saved in {self._path}")

  def save(self, step: int, state: Any) -> None:
    """Saves the state, once the one before is written; see `maybe_save`."""
    self.wait()
    about = {
      "config": self._config,
      "versions": self._versions,
      "step": step,
      "seconds": self.seconds,
    }
    if is_first():
      self._writing = self._writer.submit(self._write, flatten(state), about)
    self._newest = step

  def finish(self, step: int, state: Callable[[], Any]) -> None:
    """Saves the last state, unless that was done, and waits for it."""
    if self._newest != step:
      self.save(step, state())
    self.wait()

  def wait(self) -> None:
    """Until nothing is being written.

    Raises:
      InputError: where the last state could not be written.
    """
    if self._writing is not None:
      writing, self._writing = self._writing, None
      writing.result()

  def _newest_valid(self) -> tuple[str, dict[str, Any]] | None:
    """Where the newest checkpoint is, and what is known about it."""
    for name in self._names():
      if name.endswith(PARTIAL):  # of a process that was killed while it wrote or removed
        shutil.rmtree(os.path.join(self._path, name))
    for number in reversed(self._numbers()):
      place = self._place(number)
      if (about := set_aside_if_damaged(place)) is not None:
        self._check_owner(place, about)
        return place, about
    return None

  def _check_owner(self, place: str, about: Mapping[str, Any]) -> None:
    own = "gatprune_jax"
    told = about["versions"]
    for name, there, here in (
      ("config", about["config"], self._config),
      ("version", told.get(own), self._versions.get(own)),
    ):
      if there != here:
        raise InputError(
          f"checkpoint {place} is of another {name}: {there} there, {here} in this run: give "
          f"another workdir, or go on with the {name} that began it"
        )
    for name in sorted(told.keys() & self._versions.keys()):
      if (there := told[name]) != (here := self._versions[name]):
        logging.warning(
          "checkpoint %s was made with %s %s, this is %s: numbers may differ in their last bits",
          place, name, there, here,
        )  # fmt: skip

  def _write(self, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """The next number, damaged ones counted too; then drops what is more than to be kept."""
    numbers = (name.split(".")[0] for name in self._names())
    newest = max((int(number) for number in numbers if number.isdecimal()), default=0) + 1
    write_checkpoint(self._place(newest), arrays, about)
    valid = 1  # the one just sealed
    for number in reversed(self._numbers()[:-1]):
      if valid == self._keep:
        remove_checkpoint(self._place(number))
      elif _is_valid(self._place(number)):
        valid += 1

  def _names(self) -> list[str]:
    return os.listdir(self._path) if os.path.isdir(self._path) else []

  def _numbers(self) -> list[int]:
    """Of the checkpoints under their final names, the oldest first."""
    return sorted(int(name) for name in self._names() if name.isdecimal())

  def _place(self, number: int) -> str:
    return os.path.join(self._path, str(number))


def _is_valid(place: str) -> bool:
  try:
    verify_checkpoint(place)
  except Damaged:
    return False
  return True
