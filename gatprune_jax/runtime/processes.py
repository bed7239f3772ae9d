"""Several processes as one program: they meet, agree, watch each other, and part.

All run the same program on the same inputs. The first one alone writes files and prints; what it
reads from the disk, it tells the others. JAX's own watch over processes is switched off, because it
ends those that are left with a stack trace that does not say which one is gone.
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
  distributed,  # the key-value checkpointer of the coordination service has no other name
)
import jax.numpy as jnp
import numpy as np

from gatprune_jax.errors import InputError, first_line
from gatprune_jax.runtime import coordinator, mesh

LIMIT = 30.0  # seconds of silence after which a process counts as gone
_MEETING = 300  # seconds that processes wait for each other at the start
_DAY = 24 * 60 * 60
_PLACE = "gatprune/"
_told = itertools.count()


class Cluster(NamedTuple):
  """Which processes meet where; each None: what the cluster's own environment says."""

  coordinator: str | None  # HOST:PORT, on the first process's machine
  num_processes: int | None
  process_id: int | None


def is_first() -> bool:
  """Whether this process writes and prints; the only one does."""
  return jax.process_index() == 0


def from_first(make: Callable[[], Any]) -> Any:
  """What `make` returns in the first process, in all of them; what it raises ends them."""
  if jax.process_count() == 1:
    return make()
  key = f"{_PLACE}told/{next(_told)}"
  if is_first():
    value = make()
    _client().key_value_set_bytes(key, pickle.dumps(value))
    return value
  return pickle.loads(_client().blocking_key_value_get_bytes(key, 1000 * _DAY))


def arrays_from_first(make: Callable[[], Any], like: Any) -> Any:
  """The same for a tree of arrays, which may be large; `like` has their shapes and dtypes."""
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
  """Meets the other processes, before anything touches a device, and parts from them at the end.

  Where one is gone, or ends with an error, all others end within `limit` seconds and a fifth of it,
  with a sentence that names it and exit code 1. Gone is what is not heard of: dead, stopped, or out
  of reach.

  Args:
    cluster: the processes.
    limit: seconds.
    told: exceptions that pass, once the others know their words.
    agreed: exceptions that all processes raise together.

  Raises:
    InputError: where they do not meet.
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
      watch.wait()  # the cause may be in a process that is gone
    watch.tell(error)
    traceback.print_exc()
    end(1)
  _part(watch, service)


def end(code: int) -> None:
  """Ends this process; one that is joined without waiting for the others."""
  if distributed.global_state.client is None:
    sys.exit(code)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def _meet(cluster: Cluster, limit: float) -> Any:
  """Connects this process; returns the coordination service where it is one of its own."""
  service, bind = None, None
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  if cluster.coordinator is not None and cluster.process_id == 0:
    service = coordinator.begin(cluster.coordinator, cluster.num_processes, 2 * limit)
    bind = "localhost:0"  # of the service that JAX begins, and that nobody asks
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
  """Standard output for what the first process prints, and for nothing that gloo says there."""
  sys.stdout.flush()
  before = os.dup(1)
  with open(os.devnull, "w") as nowhere, os.fdopen(os.dup(1), "w") as out:
    os.dup2(nowhere.fileno(), 1)
    with contextlib.redirect_stdout(out if is_first() else nowhere):
      yield
  os.dup2(before, 1)
  os.close(before)


def _part(watch: "_Watch", service: Any) -> None:
  """Waits for the others, and disconnects."""
  _client().wait_at_barrier(f"{_PLACE}end", 1000 * _DAY)
  watch.stop()
  jax.distributed.shutdown()
  if service is not None:
    coordinator.end(service)


class _Watch:
  """A thread that says that this process lives, and ends it when another one does not."""

  def __init__(self, limit: float):
    self._limit, self._period = limit, limit / 10
    self._me, self._num = jax.process_index(), jax.process_count()
    self._stopped = threading.Event()
    self._asking = futures.ThreadPoolExecutor(1, "watch")
    threading.Thread(target=self._watch, daemon=True).start()

  def tell(self, error: Exception) -> None:
    """Lets the others end at once, and know why."""
    words = " ".join(f"{error}".split()) or type(error).__name__
    _client().key_value_set(f"{_PLACE}ended/{self._me}", words, allow_overwrite=True)

  def wait(self) -> None:
    """Long enough that this process is ended if another one is gone."""
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
      except Exception:  # whatever the connection raises: it is the silence that counts
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
    """Why processes have ended, and their latest beats."""
    client = _client()
    client.key_value_set(f"{_PLACE}alive/{self._me}", str(beat), allow_overwrite=True)
    return tuple(
      {int(key.rsplit("/", 1)[1]): value for key, value in client.key_value_dir_get(_PLACE + name)}
      for name in ("ended", "alive")
    )

  def _end(self, sentence: str) -> None:
    if not self._stopped.is_set():
      print(f"error: {sentence}", file=sys.stderr)
      end(1)


def _client() -> Any:
  return distributed.global_state.client
