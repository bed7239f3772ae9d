"""JAX's coordination service in a process of its own, which outlives process 0.

By default the service is part of process 0. If process 0 then dies, JAX aborts all other processes
at once, with a stack trace. The service's process runs this file as a script, not as a module of
this package, so that it imports nothing but jaxlib.
"""

import contextlib
import subprocess
import sys
import time

_DAY = 24 * 60 * 60


def begin(address: str, num_processes: int, linger: float) -> subprocess.Popen:
  """Starts the service in a process of its own, which signals to this process do not reach.

  Args:
    address: HOST:PORT; the service listens on this port at all addresses of this machine.
    num_processes: number of processes that will connect.
    linger: seconds for which the service goes on after this process has died.
  """
  arguments = (f"[::]:{address.rsplit(':', 1)[1]}", str(num_processes), str(linger))
  return subprocess.Popen(
    [sys.executable, __file__, *arguments],
    stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    start_new_session=True,
  )  # fmt: skip


def end_service(service: subprocess.Popen) -> None:
  """Ends the service; to be called once all processes have disconnected."""
  with contextlib.suppress(BrokenPipeError):
    service.communicate(b"end")


def _serve(address: str, num_processes: str, linger: str) -> None:
  from jaxlib import _jax

  # `runtime.processes` finds out which processes are alive. The service itself therefore waits a
  # day before it counts a silent process as dead.
  service = _jax.get_distributed_runtime_service(address, int(num_processes), _DAY)
  if sys.stdin.buffer.read() != b"end":
    time.sleep(float(linger))
  del service


if __name__ == "__main__":
  _serve(*sys.argv[1:])
