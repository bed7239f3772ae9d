"""Signals: the first SIGTERM or SIGINT asks a run to stop at its next step, the second ends it.

A run may be inside a long compiled call, where Python handles no signals. So a thread reads them
from a pipe, which the system writes to at once.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from types import TracebackType

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command continues
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Preempted(Exception):
  """The process was asked to stop, and what it did is saved."""


class Preemption(contextlib.AbstractContextManager):
  """Listens for signals while it is entered, in the main thread."""

  def __init__(self):
    self._asked = threading.Event()

  def __enter__(self) -> "Preemption":
    read, self._write = socket.socketpair()
    self._write.setblocking(False)
    self._before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    self._fd_before = signal.set_wakeup_fd(self._write.fileno())
    threading.Thread(target=self._listen, args=(read,), daemon=True).start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    signal.set_wakeup_fd(self._fd_before)
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._write.close()

  def should_stop(self, step: int) -> bool:
    """Whether a signal came."""
    return self._asked.is_set()

  def _listen(self, read: socket.socket) -> None:
    while received := read.recv(1):
      (number,) = received
      if number not in _SIGNALS:
        continue
      if self._asked.is_set():
        os._exit(128 + number)
      self._asked.set()
      name = signal.Signals(number).name
      print(f"{name}: stopping after this step; once more ends at once", file=sys.stderr)
    read.close()
