"""Saves a loop's states as numbered checkpoints in a directory, and restores the newest one."""

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
  """Checkpointer that keeps a loop's states in one directory.

  Only the first process reads and writes the directory. Checkpoints are numbered in the order in
  which they were saved. This is not always the order of their steps: after a roll-back, a state of
  an earlier step is saved under a later number.
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
      config: the run's config, of JSON types; states of another config are refused.
      versions: {library: version} of the libraries that the results depend on. States of another
        version of `gatprune_jax` are refused; a difference in another library gives a warning.
      keep: number of valid checkpoints that are kept.
      every: number of steps between two checkpoints of `maybe_save`.
      should_stop: called by `maybe_save` with the step; returns whether the process has to end.
      on_restore: called by `restore` with the step from which the loop goes on.
    """
    canonical = json.dumps(config, sort_keys=True).encode()
    self._path, self._keep, self._every = os.path.abspath(path), keep, every
    self._config, self._versions = hashlib.sha256(canonical).hexdigest(), dict(versions)
    self._should_stop, self._on_restore = should_stop, on_restore
    self._writer = futures.ThreadPoolExecutor(1, "checkpoint")
    self._writing: futures.Future | None = None
    self._newest: int | None = None  # step of the newest checkpoint
    self._since, self._seconds_before = time.monotonic(), None

  @property
  def seconds(self) -> float:
    """Seconds spent in this loop, including those of earlier processes up to their checkpoints."""
    return time.monotonic() - self._since + (self._seconds_before or 0.0)

  def restore(self, like: Any, otherwise: int = 0) -> tuple[int, Any] | None:
    """Returns the step and state of the newest valid checkpoint, or None where there is none.

    Newer checkpoints that are damaged are renamed, with a warning.

    Args:
      like: tree of arrays, or of their shapes and dtypes.
      otherwise: the step from which the loop goes on where there is no valid checkpoint.

    Raises:
      InputError: where the checkpoint is of another config, version or tree of arrays.
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
    """Saves the state if a checkpoint is due at this step, or if the process was asked to stop.

    Args:
      step: number of steps that the loop has done.
      state: returns the state after these steps; called only if the state is to be saved. The state
        is copied before this method returns, and a thread writes the copy.
      worthy: says whether the state is fit to go on from; if it is not, nothing is saved. Called
        only if the state is to be saved.

    Raises:
      Preempted: where the process was asked to stop; the state is saved.
      InputError: where the state, or the one saved before it, cannot be written.
    """
    stop = self._should_stop(step)
    if not (stop or step % self._every == 0) or not worthy():
      return
    self.save(step, state())
    if stop:
      self.wait()
      raise Preempted(f"stopped after step {step}, which is saved in {self._path}")

  def save(self, step: int, state: Any) -> None:
    """Waits until the previous state is written, and begins to save this one."""
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
    """Saves the last state, unless it is saved already, and waits until it is written."""
    if self._newest != step:
      self.save(step, state())
    self.wait()

  def wait(self) -> None:
    """Waits until nothing is being written any more.

    Raises:
      InputError: where the state could not be written.
    """
    if self._writing is not None:
      writing, self._writing = self._writing, None
      writing.result()

  def _newest_valid(self) -> tuple[str, dict[str, Any]] | None:
    """Returns the path of the newest valid checkpoint, and the information saved with it."""
    for name in self._names():
      if name.endswith(PARTIAL):  # left by a process that was killed
        shutil.rmtree(os.path.join(self._path, name))
    for number in reversed(self._numbers()):
      place = self._place(number)
      if (about := set_aside_if_damaged(place)) is not None:
        self._check_owner(place, about)
        return place, about
    return None

  def _check_owner(self, place: str, about: Mapping[str, Any]) -> None:
    """Raises InputError for another config or version; warns where another library differs."""
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
    """Writes the next checkpoint, and removes the oldest ones beyond the number to keep.

    Damaged and renamed checkpoints count when the next number is chosen, but not as kept ones.
    """
    numbers = (name.split(".")[0] for name in self._names())
    newest = max((int(number) for number in numbers if number.isdecimal()), default=0) + 1
    write_checkpoint(self._place(newest), arrays, about)
    valid = 1  # the checkpoint just written
    for number in reversed(self._numbers()[:-1]):
      if valid == self._keep:
        remove_checkpoint(self._place(number))
      elif _is_valid(self._place(number)):
        valid += 1

  def _names(self) -> list[str]:
    return os.listdir(self._path) if os.path.isdir(self._path) else []

  def _numbers(self) -> list[int]:
    """Returns the numbers of all checkpoints under their final names, the oldest first."""
    return sorted(int(name) for name in self._names() if name.isdecimal())

  def _place(self, number: int) -> str:
    return os.path.join(self._path, str(number))


def _is_valid(place: str) -> bool:
  try:
    verify_checkpoint(place)
  except Damaged:
    return False
  return True
