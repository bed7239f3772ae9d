"""Test of training on two devices, in a process that has two."""

import os
from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).parents[2]


def test_batch_norms_that_share_statistics_between_two_devices():
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
  process = subprocess.run(
    [sys.executable, "-m", "tests.channels.two_devices"],
    env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert process.returncode == 0, process.stderr
  assert process.stdout.split("\n")[:2] == ["linen agrees", "equinox agrees"]
