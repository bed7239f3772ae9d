"""Live numbers of a run: `metrics.jsonl`, with one JSON object per line, and the progress line."""

from collections.abc import Mapping
import json
import math
import os
import sys
import time
from typing import Any

import numpy as np
from tqdm import tqdm

from gatprune_jax.errors import InputError
from gatprune_jax.runtime.processes import is_first
from gatprune_jax.runtime.whole_files import whole_file


class MetricsFile:
  """A file of lines `{"phase": ..., "step": ..., "seconds": ..., name: value}`.

  "seconds" is the time since this object was made. NaN and infinity, which JSON does not have, are
  written as null. Only the first process writes.
  """

  def __init__(self, path: str):
    self._path = path
    self._start = time.monotonic()

  def write(self, phase: str, step: int, values: Mapping[str, Any]) -> None:
    """Appends one line.

    Args:
      phase: name of the loop.
      step: number of the line within the phase.
      values: {name: scalar or array}.

    Raises:
      InputError: where the file cannot be written.
    """
    if not is_first():
      return
    seconds = round(time.monotonic() - self._start, 3)
    line = {"phase": phase, "step": step, "seconds": seconds}
    line |= {name: _plain(np.asarray(value).tolist()) for name, value in values.items()}
    try:
      with open(self._path, "a") as file:
        file.write(json.dumps(line) + "\n")
    except OSError as error:
      raise InputError(f"{self._path} cannot be written: {error.strerror}") from error

  def rewind(self, phase: str, step: int) -> None:
    """Removes the lines that a phase wrote after a step, because it will write them again.

    Incomplete lines, which a killed process or a failing disk left, are removed too.
    """
    if not is_first() or not os.path.exists(self._path):
      return
    with open(self._path, "rb") as file:
      kept = [line for line in file if _remains(line, phase, step)]
    with whole_file(self._path) as file:
      file.writelines(kept)


def _remains(line: bytes, phase: str, step: int) -> bool:
  """Returns whether a line is complete, and is not one of the phase's lines after the step."""
  try:
    content = json.loads(line)
    return line.endswith(b"\n") and (content["phase"] != phase or content["step"] <= step)
  except (ValueError, TypeError, KeyError):
    return False


def _plain(value: Any) -> Any:
  if isinstance(value, list):
    return [_plain(item) for item in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


class ProgressLine:
  """A line on standard error: steps done, elapsed and remaining time, and some numbers.

  On a terminal the line is redrawn in place; in a log a new line is printed at most every ten
  seconds. Only the first process shows the line, and only if `shown` is true.
  """

  def __init__(self, name: str, total: int, shown: bool = True):
    interactive = sys.stderr.isatty()
    self._bar = tqdm(
      total=total,
      desc=name,
      disable=not (shown and is_first()),
      mininterval=0.2 if interactive else 10.0,
      dynamic_ncols=interactive,
      bar_format="{desc} {n_fmt}/{total_fmt} [{elapsed} < {remaining}]{postfix}"
      + ("" if interactive else "\n"),
    )

  def advance(self, **numbers: str) -> None:
    """Counts one step and shows these numbers beside it."""
    self._bar.set_postfix(numbers, refresh=False)
    self._bar.update()

  def move_to(self, step: int) -> None:
    """Sets the number of steps done, from which the line counts on."""
    if self._bar.n != step:
      self._bar.n = step
      self._bar.refresh()

  def count(self, step: int) -> None:
    """Sets the number of steps done; the line is drawn again no oftener than by `advance`."""
    self._bar.update(step - self._bar.n)

  def close(self) -> None:
    """Ends the line, which shows the last numbers."""
    self._bar.close()
