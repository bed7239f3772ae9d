"""The interface through which a loop saves and restores its state, and how often it does so."""

from collections.abc import Callable
import dataclasses
import time
from typing import Any, Protocol

from gatprune_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When states are saved.

  Attributes:
    updates: number of updates of a search between two checkpoints.
    steps: number of gradient steps between two checkpoints.
    keep: number of valid checkpoints that are kept of each loop.
  """

  updates: int = 10
  steps: int = 200
  keep: int = 3

  def __post_init__(self):
    """Raises InputError for values below 1."""
    for field in dataclasses.fields(self):
      if (value := getattr(self, field.name)) < 1:
        raise InputError(f"checkpoint {field.name} is {value}: it must be at least 1")


class Checkpointer(Protocol):
  """Saves and restores a loop's state; `step` is the number of steps that the loop has done."""

  @property
  def seconds(self) -> float:
    """Seconds spent in this loop, including those of earlier processes."""

  def restore(self, like: Any, otherwise: int = 0) -> tuple[int, Any] | None:
    """Returns the step and state that were saved last, or None where nothing was saved.

    Args:
      like: tree of arrays, or of their shapes and dtypes.
      otherwise: the step from which the loop goes on where nothing was saved.
    """

  def maybe_save(
    self, step: int, state: Callable[[], Any], worthy: Callable[[], bool] = lambda: True
  ) -> None:
    """Saves the state if a checkpoint is due at this step.

    Args:
      step: number of steps that the loop has done.
      state: returns the state after these steps; called only if a checkpoint is due.
      worthy: says whether the state is fit to go on from; called only if a checkpoint is due.
    """

  def save(self, step: int, state: Any) -> None:
    """Begins to save the state; it may still be written after this returns."""

  def finish(self, step: int, state: Callable[[], Any]) -> None:
    """Saves the last state, unless it is saved already, and waits until it is written."""

  def wait(self) -> None:
    """Waits until nothing is being saved any more."""


class NullCheckpointer:
  """Checkpointer that saves nothing."""

  def __init__(self):
    self._since = time.monotonic()

  @property
  def seconds(self) -> float:
    """Seconds since this object was made."""
    return time.monotonic() - self._since

  def restore(self, *arguments: Any) -> None:
    """Returns None, because nothing was saved."""

  def maybe_save(self, *arguments: Any) -> None:
    """Does nothing."""

  def save(self, *arguments: Any) -> None:
    """Does nothing."""

  def finish(self, *arguments: Any) -> None:
    """Does nothing."""

  def wait(self) -> None:
    """Does nothing."""
