"""A lock that keeps all but one process out of a directory."""

from collections.abc import Iterator
import contextlib
import datetime
import json
import os
import socket

from filelock import FileLock, Timeout

from gatprune_jax.errors import InputError

LOCK, OWNER = ".lock", ".owner"


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
  """Holds the directory's lock; the operating system frees it however the process ends.

  Raises:
    InputError: where another process holds it.
    OSError: where the directory cannot be written.
  """
  lock, owner = FileLock(os.path.join(directory, LOCK)), os.path.join(directory, OWNER)
  try:
    lock.acquire(blocking=False)
  except Timeout as error:
    raise InputError(
      f"workdir {directory} is in use{_told(owner)}: wait until it ends, or give another workdir"
    ) from error
  try:
    with open(owner, "w") as file:
      since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
      json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, file)
    yield
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.remove(owner)
    lock.release()


def _told(owner: str) -> str:
  """Returns words that name the process that holds the lock; empty where they cannot be read."""
  try:
    with open(owner) as file:
      about = json.load(file)
    return f" by process {about['pid']} on {about['host']} since {about['since']}"
  except (OSError, ValueError, KeyError):
    return ""
