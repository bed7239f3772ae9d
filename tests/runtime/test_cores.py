"""Tests of CPU cores as devices."""

import os
import subprocess
import sys

import pytest

from gatprune_jax.runtime import cores

COUNT = """
from gatprune_jax.runtime import cores
cores.make_devices()
import jax
print(jax.device_count(), cores.are_devices())
"""

BLAS = """
from gatprune_jax.runtime import cores
cores.make_devices()
import jax, threadpoolctl
from jax import numpy as jnp
jnp.linalg.cholesky(jnp.eye(3)).block_until_ready()
pools = threadpoolctl.threadpool_info()
print(*(pool["num_threads"] for pool in pools if pool["user_api"] == "blas"))
"""

# In this program the second of two devices has about ninety seconds more work than the first.
WAIT = """
from gatprune_jax.runtime import cores
cores.make_devices()
import time
import jax
from jax import numpy as jnp
from gatprune_jax.runtime import maps, mesh

def work(rows):
  step = lambda i, x: jnp.sin(x @ x / 512)
  run = lambda steps: jax.lax.fori_loop(0, steps, step, jnp.ones((512, 512)) * rows[0])
  return jax.lax.cond(rows[0] > 0, lambda: run(num_steps), lambda: run(1))[:1, 0]

rows = jnp.arange(2.0)
for num_steps in (1000, None):
  start = time.monotonic()
  num_steps = num_steps or int(90 * 1000 / seconds)
  fn = jax.jit(maps.over_shares(lambda rows: ((), work(rows)), 2))
  jax.block_until_ready(fn(mesh.share_out(rows)))
  seconds = time.monotonic() - start
print(jax.device_count(), seconds > 65)
"""


def run(program, **variables):
  """Runs a program and returns the words that it prints.

  Only the given environment variables determine the number of devices.
  """
  names = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
  environment = {name: value for name, value in os.environ.items() if name not in names}
  environment |= {"JAX_PLATFORMS": "cpu", **variables}
  done = subprocess.run(
    [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.split()


def test_blas_leaves_the_cores_to_the_devices():
  assert set(run(BLAS)) == {"1"}


def test_every_core_is_a_device():
  number, are_devices = run(COUNT)
  assert int(number) == min(cores.num_cores(), 8)
  assert are_devices == str(cores.num_cores() <= 8)


def test_one_core_is_one_device():
  pinned = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\n"
  assert run(pinned + COUNT) == ["1", "True"]


@pytest.mark.parametrize(
  "variables",
  [{"JAX_NUM_CPU_DEVICES": "3"}, {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}],
)
def test_who_says_how_many_devices_gets_as_many(variables):
  assert run(COUNT, **variables)[0] == "3"


@pytest.mark.slow
def test_devices_wait_for_each_other_longer_than_xla_has_them_wait_by_default():
  assert run(WAIT, JAX_NUM_CPU_DEVICES="2") == ["2", "True"]
