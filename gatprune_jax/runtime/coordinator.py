"""JAX's coordination service as a process of its own, which outlives process 0.

Where the service is part of process 0 and that dies, JAX aborts the others at once, with a stack
trace. Run as a file, not as a module: it imports nothing but jaxlib.
"""

import contextlib
import subprocess
import sys
import time

_DAY = 24 * 60 * 60


def begin(address: str, num_processes: int, linger: float) -> subprocess.Popen:
  """Starts the service in a process that no signal to this one reaches.

  Args:
    address: HOST:PORT; all of this machine's addresses are listened at.
    num_processes: that will connect.
    linger: seconds that it goes on when this process has died.
  """
  arguments = (f"[::]:{address.rsplit(':', 1)[1]}", str(num_processes), str(linger))
  return subprocess.Popen(
    [sys.executable, __file__, *arguments],
    stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    start_new_session=True,
  )  # fmt: skip


def end(service: subprocess.Popen) -> None:
  """Ends the service, once all processes have disconnected."""
  with contextlib.suppress(BrokenPipeError):
    service.communicate(b"end")


def _serve(address: str, num_processes: str, linger: str) -> None:
  from jaxlib import _jax

  # Who is alive is found out by `processes`: the service itself gives nobody up.
  service = _jax.get_distributed_runtime_service(address, int(num_processes), _DAY)
  if sys.stdin.buffer.read() != b"end":
    time.sleep(float(linger))
  del service


if __name__ == "__main__":
  _serve(*sys.argv[1:])
