"""Several processes as one program: they connect, share values, watch each other, and disconnect.

All processes run the same program on the same inputs. Only the first process writes files and
prints. It sends what it reads from the disk to the other processes. JAX's own watch over processes
is switched off, because it ends the remaining processes with a stack trace that does not say which
process is gone.
"""

from collections.abc import Callable, Iterator
from concurrent import futures
import contextlib
import itertools
import os
import pickle
import sys
import threading
import time
import traceback
from typing import Any, NamedTuple

import jax
from jax._src import (
  distributed,  # JAX has no public name for the coordination service's key-value store
)
import jax.numpy as jnp
import numpy as np

from gatprune_jax.errors import InputError, first_line
from gatprune_jax.runtime import coordinator, mesh

LIMIT = 30.0  # seconds of silence after which a process counts as gone
_MEETING = 300  # seconds for which processes wait for each other at the start
_DAY = 24 * 60 * 60
_PLACE = "gatprune/"  # prefix of all keys in the key-value store
_told = itertools.count()


class Cluster(NamedTuple):
  """The processes and where they connect; None: JAX detects the value from its environment."""

  coordinator: str | None  # HOST:PORT, on the first process's machine
  num_processes: int | None
  process_id: int | None


def is_first() -> bool:
  """Returns whether this is the first process, which writes and prints; a single process is."""
  return jax.process_index() == 0


def from_first(make: Callable[[], Any]) -> Any:
  """Calls `make` in the first process, and returns the result in all processes.

  Where `make` raises an exception, the other processes end too, see `joined`.
  """
  if jax.process_count() == 1:
    return make()
  key = f"{_PLACE}told/{next(_told)}"
  if is_first():
    value = make()
    _client().key_value_set_bytes(key, pickle.dumps(value))
    return value
  return pickle.loads(_client().blocking_key_value_get_bytes(key, 1000 * _DAY))


def arrays_from_first(make: Callable[[], Any], like: Any) -> Any:
  """Does what `from_first` does, for a tree of large arrays of the shapes and dtypes of `like`."""
  if jax.process_count() == 1:
    return make()
  empty = lambda leaf: np.zeros(leaf.shape, leaf.dtype)
  tree = make() if is_first() else jax.tree.map(empty, like)
  return jax.tree.map(jnp.asarray, mesh.agree(tree))


@contextlib.contextmanager
def joined(
  cluster: Cluster,
  limit: float,
  told: tuple[type[Exception], ...],
  agreed: tuple[type[Exception], ...],
) -> Iterator[None]:
  """Connects this process to the others, and disconnects it when the context ends.

  The context must be entered before anything uses a device. Where a process is gone or ends with an
  error, all other processes end within 1.2 times `limit`, with exit code 1 and a sentence that
  names this process. A process counts as gone when it is silent: it is dead, stopped, or out of
  reach.

  Args:
    cluster: the processes.
    limit: seconds of silence after which a process counts as gone.
    told: exceptions that are raised again, after their messages were sent to the other processes,
      which then end.
    agreed: exceptions that all processes raise together; they are raised again after the processes
      have disconnected.

  Raises:
    InputError: where the processes do not connect.
  """
  service = _meet(cluster, limit)
  watch = _Watch(limit)
  try:
    with _quiet():
      yield
  except told as error:
    watch.tell(error)
    raise
  except agreed:
    _part(watch, service)
    raise
  except Exception as error:
    if isinstance(error, jax.errors.JaxRuntimeError):
      watch.wait()  # the cause may be that another process is gone
    watch.tell(error)
    traceback.print_exc()
    end_process(1)
  _part(watch, service)


def end_process(code: int) -> None:
  """Ends this process with an exit code; a joined process does not wait for the others."""
  if distributed.global_state.client is None:
    sys.exit(code)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def _meet(cluster: Cluster, limit: float) -> Any:
  """Connects this process; returns the coordination service where this process has started it."""
  service, bind = None, None
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  if cluster.coordinator is not None and cluster.process_id == 0:
    service = coordinator.begin(cluster.coordinator, cluster.num_processes, 2 * limit)
    bind = "localhost:0"  # address of the service that JAX starts too, and that is not used
  try:
    jax.distributed.initialize(
      *cluster, initialization_timeout=_MEETING, heartbeat_timeout_seconds=_DAY,
      coordinator_bind_address=bind,
    )  # fmt: skip
  except (RuntimeError, ValueError) as error:
    raise InputError(
      f"the processes did not meet ({first_line(error)}): give all of them the same "
      "--coordinator=HOST:PORT and --num_processes, and each its own --process_id"
    ) from error
  return service


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps gloo's messages, and what other processes than the first print, off standard output."""
  sys.stdout.flush()
  before = os.dup(1)
  with open(os.devnull, "w") as nowhere, os.fdopen(os.dup(1), "w") as out:
    os.dup2(nowhere.fileno(), 1)
    with contextlib.redirect_stdout(out if is_first() else nowhere):
      yield
  os.dup2(before, 1)
  os.close(before)


def _part(watch: "_Watch", service: Any) -> None:
  """Waits for the other processes, and disconnects this one."""
  _client().wait_at_barrier(f"{_PLACE}end", 1000 * _DAY)
  watch.stop()
  jax.distributed.shutdown()
  if service is not None:
    coordinator.end_service(service)


class _Watch:
  """A thread that signals to other processes that this one is alive, and watches them.

  It ends this process when another one is gone or has ended with an error.
  """

  def __init__(self, limit: float):
    self._limit, self._period = limit, limit / 10
    self._me, self._num = jax.process_index(), jax.process_count()
    self._stopped = threading.Event()
    self._asking = futures.ThreadPoolExecutor(1, "watch")
    threading.Thread(target=self._watch, daemon=True).start()

  def tell(self, error: Exception) -> None:
    """Sends an error's message to the other processes, which then end."""
    words = " ".join(f"{error}".split()) or type(error).__name__
    _client().key_value_set(f"{_PLACE}ended/{self._me}", words, allow_overwrite=True)

  def wait(self) -> None:
    """Waits so long that the watch ends this process if another one is gone."""
    time.sleep(self._limit + 3 * self._period)

  def stop(self) -> None:
    """Ends the watch."""
    self._stopped.set()

  def _watch(self) -> None:
    begin = time.monotonic()
    heard = {process: ("", begin) for process in range(self._num) if process != self._me}
    answered = begin
    for beat in itertools.count():
      now = time.monotonic()
      try:
        ended, alive = self._asking.submit(self._ask, beat).result(self._limit)
        answered = now
      except Exception:  # only the length of the silence counts, not its cause
        if now - answered > self._limit:
          self._end(f"process 0 is gone: its machine was silent for {self._limit:g} s")
        ended, alive = {}, {}
      for process, why in ended.items():
        self._end(f"process {process} has ended: {why}")
      for process, (last, since) in heard.items():
        if (latest := alive.get(process, last)) != last:
          heard[process] = (latest, now)
        elif now - since > self._limit:
          self._end(
            f"process {process} is gone: it was silent for {self._limit:g} s; this one ends too, "
            "and the same commands go on from the last checkpoint"
          )
      if self._stopped.wait(self._period):
        return

  def _ask(self, beat: int) -> tuple[dict[int, str], dict[int, str]]:
    """Sends this process's beat to the key-value store, and reads what is there.

    Returns:
      {process: message of the error with which it ended}, and {process: its latest beat}.
    """
    client = _client()
    client.key_value_set(f"{_PLACE}alive/{self._me}", str(beat), allow_overwrite=True)
    return tuple(
      {int(key.rsplit("/", 1)[1]): value for key, value in client.key_value_dir_get(_PLACE + name)}
      for name in ("ended", "alive")
    )

  def _end(self, sentence: str) -> None:
    if not self._stopped.is_set():
      print(f"error: {sentence}", file=sys.stderr)
      end_process(1)


def _client() -> Any:
  return distributed.global_state.client
