"""Makes every CPU core a device of JAX.

Computing one mask or candidate on each core is faster than computing one after the other on all
cores, because no core waits for another after every layer, and each core works in its own cache.

XLA then has one thread for each device, and a device that waits for the others in a collective
holds its thread. So no other operation in a program for all devices may hold a thread and wait for
another thread, because then all of them could wait for ever. Batches of factorisations and of
triangular solves are such operations; compute them one after the other by `maps.over_rows`.
"""

import importlib
import os

import jax
import threadpoolctl

# Every device takes memory for its copy of images and weights, and a search scores only some dozens
# of masks at once, which leaves little work for more devices.
_MOST_DEVICES = 8
_COUNT = "--xla_force_host_platform_device_count"
# In a collective the devices wait for each other. By default XLA ends the process when one has
# waited for a minute, and a core that is busy with other programs may take that long.
_PATIENCE = {
  "--xla_cpu_collective_call_warn_stuck_timeout_seconds": 5 * 60,
  "--xla_cpu_collective_call_terminate_timeout_seconds": 30 * 60,
}


def num_cores() -> int:
  """Returns the number of CPU cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):  # macOS does not have this function
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def make_devices() -> None:
  """Makes every core of the CPU a device, at most eight; to be called before JAX is used.

  Where `JAX_NUM_CPU_DEVICES` or `XLA_FLAGS` gives a number of devices, that number is used instead.
  """
  flags = os.environ.get("XLA_FLAGS", "")
  if jax.config.jax_num_cpu_devices < 0 and _COUNT not in flags:
    jax.config.update("jax_num_cpu_devices", min(num_cores(), _MOST_DEVICES))
  # After a small factorisation the threads of BLAS keep their cores busy for a while, in case that
  # another one follows. They would take the cores from the devices that score compensated masks.
  importlib.import_module("scipy.linalg")  # loads the BLAS library with which JAX factorises
  threadpoolctl.threadpool_limits(1, user_api="blas")
  patience = (f"{name}={value}" for name, value in _PATIENCE.items() if name not in flags)
  os.environ["XLA_FLAGS"] = " ".join([flags, *patience]).strip()


def are_devices() -> bool:
  """Returns whether CPU devices have at most one core each; meaningless for other devices."""
  return jax.local_device_count() >= num_cores()
