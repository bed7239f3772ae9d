"""Benchmark of scoring masks on two CPU devices against one, with one core for each device."""

import os
import subprocess
import sys

from experiments.benchmarks.mask_scoring import score_all
from experiments.benchmarks.masked_resnet import problem
from experiments.benchmarks.measuring import Measurement, alternating
from experiments.benchmarks.peers import Skipped

_MASKS, _IMAGES = 8, 256  # 256 images for the statistics, and 256 for the score
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"


def scaling() -> list[Measurement]:
  """Compares scoring on two devices with scoring on one, each in a process of its own.

  Raises:
    Skipped: if this process may use fewer than two cores.
  """
  if len(os.sched_getaffinity(0)) < 2:
    raise Skipped("it needs two cores")
  two, one = _seconds(2), _seconds(1)
  name = f"score {_MASKS} masks of resnet20, {2 * _IMAGES} images each, two devices"
  return [Measurement(name, two, "one device", one, one / two, "one core for each device")]


def _seconds(num_devices: int) -> float:
  """Runs `main` in a process with `num_devices` devices and cores; returns its seconds."""
  cores = sorted(os.sched_getaffinity(0))[:num_devices]
  program = (
    f"import os; os.sched_setaffinity(0, {cores})\n"  # before JAX counts the cores
    "from experiments.benchmarks.device_scaling import main; main()"
  )
  flags = f"{_ONE_THREAD} --xla_force_host_platform_device_count={num_devices}"
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
  command = [sys.executable, "-c", program]
  done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
  return float(done.stdout)


def main() -> None:
  """Prints the seconds that scoring all masks takes, on the devices of this process."""
  (seconds,) = alternating(score_all(problem(_MASKS, _IMAGES, "float32")), repeats=3)
  print(seconds)
