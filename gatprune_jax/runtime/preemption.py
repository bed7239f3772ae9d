"""Signals: the first SIGTERM or SIGINT asks a run to stop at its next step, the second ends it.

A run may be inside a long compiled call, where Python handles no signals. So a thread reads them
from a pipe, which the system writes to at once.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import signal
import socket
import sys
import threading

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command continues
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Preempted(Exception):
  """The process was asked to stop, and what it did is saved."""


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], bool]]:
  """Listens for signals while it is entered, in the main thread; yields whether one came."""
  asked = threading.Event()
  read, write = socket.socketpair()
  write.setblocking(False)
  handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
  before = signal.set_wakeup_fd(write.fileno())
  threading.Thread(target=_listen, args=(read, asked), daemon=True).start()
  try:
    yield asked.is_set
  finally:
    signal.set_wakeup_fd(before)
    for number, handler in handlers.items():
      signal.signal(number, handler)
    write.close()


def _listen(read: socket.socket, asked: threading.Event) -> None:
  while received := read.recv(1):
    (number,) = received
    if number not in _SIGNALS:
      continue
    if asked.is_set():
      os._exit(128 + number)
    asked.set()
    name = signal.Signals(number).name
    print(f"{name}: stopping after this step; once more ends at once", file=sys.stderr)
  read.close()
