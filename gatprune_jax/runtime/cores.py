"""CPU cores as devices.

One mask or candidate on each core is faster than one after the other on all of them: no core waits
for another after every layer, and each works in its own cache.

XLA has one thread for each device then, and a device that waits for the others in a collective
holds one. So in programs for all devices nothing else may hold a thread and wait, or all wait for
ever. Batches of factorisations and of triangular solves do: they are for `maps.over_rows`.
"""

import os

import jax

# Every device has a copy of images and weights, and a search scores masks by the dozen.
_MOST_DEVICES = 8
_COUNT = "--xla_force_host_platform_device_count"
# Devices wait for each other where they meet. By default XLA ends the process after a minute, which
# a core that is busy with other things may take.
_PATIENCE = {
  "--xla_cpu_collective_call_warn_stuck_timeout_seconds": 5 * 60,
  "--xla_cpu_collective_call_terminate_timeout_seconds": 30 * 60,
}


def num_cores() -> int:
  """Cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):  # not on macOS
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def make_devices() -> None:
  """Makes every core of the CPU a device, at most eight; to be called before JAX is used.

  Where `JAX_NUM_CPU_DEVICES` or `XLA_FLAGS` gives a number of devices, that is taken.
  """
  flags = os.environ.get("XLA_FLAGS", "")
  if jax.config.jax_num_cpu_devices < 0 and _COUNT not in flags:
    jax.config.update("jax_num_cpu_devices", min(num_cores(), _MOST_DEVICES))
  patience = (f"{name}={value}" for name, value in _PATIENCE.items() if name not in flags)
  os.environ["XLA_FLAGS"] = " ".join([flags, *patience]).strip()


def are_devices() -> bool:
  """Whether no device has more than one core to itself, where devices are of the CPU."""
  return jax.local_device_count() >= num_cores()
