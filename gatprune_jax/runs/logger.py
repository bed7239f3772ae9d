"""A run's loops as users see them: checkpoints to go on from, lines of metrics, progress lines."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import os
import shutil
from typing import Any, NamedTuple

from gatprune_jax.errors import InputError
from gatprune_jax.runs.checkpointer import CheckpointConfig, Checkpointer, NullCheckpointer
from gatprune_jax.runs.file_checkpointer import FileCheckpointer
from gatprune_jax.runs.metrics import MetricsFile, ProgressLine
from gatprune_jax.runs.workdir import versions
from gatprune_jax.runtime.processes import is_first


class Run(NamedTuple):
  """Which run a process is to do."""

  workdir: str
  config: dict[str, Any]  # resolved, of JSON types
  should_stop: Callable[[int], bool]  # step -> whether the process was asked to end


def path_name(name: str) -> str:
  """The name of a loop in paths."""
  return name.replace(" ", "-")


def place_of(folder: str, name: str) -> str:
  """Path of the checkpoints in a folder by their name."""
  return os.path.join(folder, "checkpoints", path_name(name))


class ProgressLogger:
  """Progress lines alone: the loops of a run that leaves nothing.

  Attributes:
    every: how often a loop would be saved.
  """

  def __init__(self, progress: bool = True):
    self.every, self._progress = CheckpointConfig(), progress

  @contextlib.contextmanager
  def loop(self, phase: str, title: str, total: int) -> Iterator["Loop"]:
    """A loop with so many lines of metrics; what it saves is on the disk once it is left."""
    loop = Loop(self, phase, ProgressLine(title, total, self._progress))
    try:
      yield loop
    except BaseException:
      with contextlib.suppress(InputError):  # what ended the loop is told, not what came after it
        loop.close()
      raise
    loop.close()

  def write(self, phase: str, line: int, values: Mapping[str, Any]) -> None:
    """Takes a line of metrics."""

  def rewind(self, phase: str, line: int) -> None:
    """Drops what a phase wrote after a line, which it is about to do again."""

  def checkpointer(self, name: str, every: int, on_restore: Callable[[int], None]) -> Checkpointer:
    """Where a loop of that name is saved, every so many steps; told from which step it goes on."""
    return NullCheckpointer()

  def forget(self, phase: str) -> None:
    """Removes the checkpoints of a loop whose outcome is saved elsewhere."""


class RunLogger(ProgressLogger):
  """What the loops of a run leave in a directory."""

  def __init__(self, run: Run, every: CheckpointConfig, folder: str, progress: bool = True):
    """Makes the folder; `metrics.jsonl` and `checkpoints/` come to be in it."""
    super().__init__(progress)
    if is_first():
      os.makedirs(folder, exist_ok=True)
    self.every, self._run, self._folder, self._versions = every, run, folder, versions()
    self._metrics = MetricsFile(os.path.join(folder, "metrics.jsonl"))

  def place(self, name: str) -> str:
    """Path of its checkpoints by name."""
    return place_of(self._folder, name)

  def write(self, phase: str, line: int, values: Mapping[str, Any]) -> None:
    """Writes a line of metrics."""
    self._metrics.write(phase, line, values)

  def rewind(self, phase: str, line: int) -> None:
    """Drops what a phase wrote after a line."""
    self._metrics.rewind(phase, line)

  def checkpointer(
    self, name: str, every: int, on_restore: Callable[[int], None]
  ) -> FileCheckpointer:
    """FileCheckpointer of that name."""
    return FileCheckpointer(
      self.place(name), self._run.config, self._versions, self.every.keep, every,
      self._run.should_stop, on_restore,
    )  # fmt: skip

  def forget(self, phase: str) -> None:
    """Removes the checkpoints of a loop whose outcome is saved elsewhere."""
    if is_first():
      shutil.rmtree(self.place(phase), ignore_errors=True)


class Loop:
  """A phase of the metrics, and its progress line."""

  def __init__(self, logger: ProgressLogger, phase: str, line: ProgressLine):
    self._logger, self._phase, self._line = logger, phase, line
    self._checkpointers: list[Checkpointer] = []

  def close(self) -> None:
    """Ends the progress line, and waits for what is being saved."""
    self._line.close()
    for checkpointer in self._checkpointers:
      checkpointer.wait()

  def checkpointer(self, every: int, line_of: Callable[[int], int], name: str = "") -> Checkpointer:
    """Where a library's loop is saved; the metrics go back with it where it is restored.

    Args:
      every: steps between two checkpoints.
      line_of: step -> the last line of metrics that is kept when the loop goes on from there.
      name: of its checkpoints; the phase's unless given.
    """

    def rewind(step: int) -> None:
      self._logger.rewind(self._phase, line_of(step))
      self._line.move_to(line_of(step))

    self._checkpointers.append(self._logger.checkpointer(name or self._phase, every, rewind))
    return self._checkpointers[-1]

  def record(
    self, line: int, values: Mapping[str, Any], shown: Mapping[str, str] | None = None
  ) -> None:
    """Writes a line of metrics and advances the progress line, which shows some of it."""
    self._logger.write(self._phase, line, values)
    if shown is None:
      shown = {name: f"{value:.3f}" for name, value in values.items()}
    self._line.advance(**shown)
