"""Options with which XLA compiles fast: tests run a program only for a moment."""

import os
import subprocess
import sys

_OPTIONS = (
  "--xla_backend_optimization_level=0",
  "--xla_llvm_disable_expensive_passes=true",
  "--xla_cpu_use_fusion_emitters=false",
  "--xla_cpu_parallel_codegen_split_count=1",
)
# The processes that tests start inherit the answer, so that XLA is asked once.
_ANSWER = "GATPRUNE_TEST_XLA_FLAGS"


def quickly():
  """Returns the value of XLA_FLAGS with those options that this version of XLA accepts.

  XLA ends a process that gives it an unknown option, so a process of its own finds out.
  """
  if _ANSWER not in os.environ:
    known = _OPTIONS if _accepts(_OPTIONS) else [one for one in _OPTIONS if _accepts([one])]
    os.environ[_ANSWER] = " ".join(known)
  return os.environ[_ANSWER]


def _accepts(options):
  environment = {**os.environ, "XLA_FLAGS": " ".join(options), "JAX_PLATFORMS": "cpu"}
  command = [sys.executable, "-c", "import jax; jax.devices()"]
  return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
