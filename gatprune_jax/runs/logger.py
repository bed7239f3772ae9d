"""What users see of a run's loops: lines of metrics, progress lines, and checkpoints.

A logger opens a `Loop` for each phase of a run. Library functions such as `train` are given the
loop's checkpointer, so that metrics and progress line stay in step with a restored state.
"""

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
  """The run that a process carries out."""

  workdir: str
  config: dict[str, Any]  # all fields with their values, of JSON types
  should_stop: Callable[[int], bool]  # step -> whether the process was asked to end


def path_name(name: str) -> str:
  """Returns a loop's name in the form that is used in paths."""
  return name.replace(" ", "-")


def place_of(folder: str, name: str) -> str:
  """Returns the path, in a run's folder, of the checkpoints with the given name."""
  return os.path.join(folder, "checkpoints", path_name(name))


class ProgressLogger:
  """Logger that shows progress lines and writes nothing to the disk.

  Attributes:
    every: how often loops save their states; the checkpointers of this logger save nothing.
  """

  def __init__(self, progress: bool = True):
    self.every, self._progress = CheckpointConfig(), progress

  @contextlib.contextmanager
  def loop(self, phase: str, title: str, total: int) -> Iterator["Loop"]:
    """Opens a loop; when the context ends, everything that the loop saves is on the disk.

    Args:
      phase: name of the loop in the metrics.
      title: words at the start of the progress line.
      total: number of lines of metrics that the loop records.
    """
    loop = Loop(self, phase, self.line(title, total))
    try:
      yield loop
    except BaseException:
      with contextlib.suppress(InputError):  # the first error is the one to report
        loop.close()
      raise
    loop.close()

  def line(self, title: str, total: int) -> ProgressLine:
    """Returns a new progress line.

    Args:
      title: words at its start.
      total: number of steps that it counts to.
    """
    return ProgressLine(title, total, self._progress)

  def write(self, phase: str, line: int, values: Mapping[str, Any]) -> None:
    """Ignores a line of metrics, because this logger writes nothing."""

  def rewind(self, phase: str, line: int) -> None:
    """Does nothing, because this logger has written no lines."""

  def checkpointer(self, name: str, every: int, on_restore: Callable[[int], None]) -> Checkpointer:
    """Returns the checkpointer of a loop; the one of this logger saves nothing.

    Args:
      name: name of the checkpoints.
      every: number of steps between two checkpoints.
      on_restore: called with the step from which the loop goes on.
    """
    return NullCheckpointer()

  def forget(self, phase: str) -> None:
    """Does nothing, because this logger has saved no checkpoints."""


class RunLogger(ProgressLogger):
  """Logger that writes the metrics and checkpoints of a run's loops to a folder."""

  def __init__(self, run: Run, every: CheckpointConfig, folder: str, progress: bool = True):
    """Makes the folder, in which `metrics.jsonl` and `checkpoints/` are written later.

    Args:
      run: the run whose loops are logged.
      every: how often loops save their states, and how many checkpoints are kept.
      folder: path of the folder.
      progress: whether progress lines are shown.
    """
    super().__init__(progress)
    if is_first():
      os.makedirs(folder, exist_ok=True)
    self.every, self._run, self._folder, self._versions = every, run, folder, versions()
    self._metrics = MetricsFile(os.path.join(folder, "metrics.jsonl"))

  def place(self, name: str) -> str:
    """Returns the path of the checkpoints with the given name."""
    return place_of(self._folder, name)

  def write(self, phase: str, line: int, values: Mapping[str, Any]) -> None:
    """Writes a line of metrics."""
    self._metrics.write(phase, line, values)

  def rewind(self, phase: str, line: int) -> None:
    """Removes the lines that a phase wrote after the given line, and will write again."""
    self._metrics.rewind(phase, line)

  def checkpointer(
    self, name: str, every: int, on_restore: Callable[[int], None]
  ) -> FileCheckpointer:
    """Returns a checkpointer that saves to the path of that name, see `place`."""
    return FileCheckpointer(
      self.place(name), self._run.config, self._versions, self.every.keep, every,
      self._run.should_stop, on_restore,
    )  # fmt: skip

  def forget(self, phase: str) -> None:
    """Removes the checkpoints of a loop whose outcome is saved elsewhere, and of `{phase}/...`."""
    if is_first():
      shutil.rmtree(self.place(phase), ignore_errors=True)


class Loop:
  """One loop of a run: its phase in the metrics, its progress line, and its checkpointers."""

  def __init__(self, logger: ProgressLogger, phase: str, line: ProgressLine):
    self._logger, self._phase, self._line = logger, phase, line
    self._title: str | None = None  # of the line that has taken the place of the first one
    self._checkpointers: list[Checkpointer] = []

  def close(self) -> None:
    """Ends the progress line, and waits until nothing is being saved any more."""
    self._line.close()
    for checkpointer in self._checkpointers:
      checkpointer.wait()

  def checkpointer(self, every: int, line_of: Callable[[int], int], name: str = "") -> Checkpointer:
    """Returns a checkpointer for the function that runs this loop's steps.

    Where it restores a state, it also takes the metrics and the progress line back to that state.

    Args:
      every: number of steps between two checkpoints.
      line_of: step -> the last line of metrics that is kept when the loop goes on from this step.
      name: name of the checkpoints; empty: the name of the phase.
    """

    def rewind(step: int) -> None:
      self._logger.rewind(self._phase, line_of(step))
      self._line.move_to(line_of(step))

    self._checkpointers.append(self._logger.checkpointer(name or self._phase, every, rewind))
    return self._checkpointers[-1]

  def count(self, title: str, done: int, total: int) -> None:
    """Shows how far the loop is with what comes after the steps that it records.

    Args:
      title: words at the start of the progress line; other words than before begin a new line.
      done: number of things that are done.
      total: number of things to do.
    """
    if title != self._title:
      self._line.close()
      self._title, self._line = title, self._logger.line(title, total)
    self._line.count(done)

  def record(
    self, line: int, values: Mapping[str, Any], shown: Mapping[str, str] | None = None
  ) -> None:
    """Writes a line of metrics and advances the progress line.

    Args:
      line: number of the line within the phase.
      values: {name: scalar or array} to write.
      shown: {name: text} for the progress line; None: all values with three decimals.
    """
    self._logger.write(self._phase, line, values)
    if shown is None:
      shown = {name: f"{value:.3f}" for name, value in values.items()}
    self._line.advance(**shown)
