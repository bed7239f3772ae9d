"""Signals: the first SIGTERM or SIGINT asks a run to stop at its next step, the second ends it.

The main thread may be inside a long compiled call, during which Python runs no signal handlers. So
a thread reads the signals from a socket, to which the interpreter writes each of them at once.
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
  """The process was asked to stop, and its state is saved."""


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], bool]]:
  """Listens for SIGTERM and SIGINT within the context; to be entered in the main thread.

  Yields:
    A function that returns whether a signal has come.
  """
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
