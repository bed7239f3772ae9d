"""When and where a loop saves its state, as far as the loop knows."""

from collections.abc import Callable
import dataclasses
import time
from typing import Any, Protocol

from gatprune_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When states are saved.

  Attributes:
    updates: updates of a search between two checkpoints.
    steps: gradient steps between two checkpoints.
    keep: valid checkpoints kept of each loop.
  """

  updates: int = 10
  steps: int = 200
  keep: int = 3

  def __post_init__(self):
    """Refuses values below 1."""
    for field in dataclasses.fields(self):
      if (value := getattr(self, field.name)) < 1:
        raise InputError(f"checkpoint {field.name} is {value}: it must be at least 1")


class Checkpointer(Protocol):
  """Where a loop leaves its state; a step is how much of the loop is done."""

  @property
  def seconds(self) -> float:
    """Spent in this loop, by earlier processes too."""

  def restore(self, like: Any, otherwise: int = 0) -> tuple[int, Any] | None:
    """The newest step and state saved; None where there is none.

    Args:
      like: tree of arrays, or of their shapes and dtypes.
      otherwise: the step from which the loop goes on where there is none.
    """

  def maybe_save(
    self, step: int, state: Callable[[], Any], worthy: Callable[[], bool] = lambda: True
  ) -> None:
    """Saves the state where it is time to."""

  def save(self, step: int, state: Any) -> None:
    """Begins to save the state."""

  def finish(self, step: int, state: Callable[[], Any]) -> None:
    """Saves the last state, unless that was done, and waits for it."""

  def wait(self) -> None:
    """Until nothing is being saved."""


class NullCheckpointer:
  """Saves nothing."""

  def __init__(self):
    self._since = time.monotonic()

  @property
  def seconds(self) -> float:
    """Since it was made."""
    return time.monotonic() - self._since

  def restore(self, *arguments: Any) -> None:
    """Nothing."""

  def maybe_save(self, *arguments: Any) -> None:
    """Does nothing."""

  def save(self, *arguments: Any) -> None:
    """Does nothing."""

  def finish(self, *arguments: Any) -> None:
    """Does nothing."""

  def wait(self) -> None:
    """Does nothing."""
