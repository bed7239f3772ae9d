"""Times programs on the device at hand, in turn, so that drift of its speed meets all alike.

On a CPU the programs run in a process of its own, which may use one core and computes in the
thread that calls, and its processor time counts. This is what latency means here on a CPU. On an
idle machine it is the time that passes. On a busy one it leaves out the time in which the core
served other processes. On several cores, threads that hand work to each other also wait for the
scheduler, so that the time that passes says more about the machine's other work than about the
network. On an accelerator, which often serves one process only, the programs run in this process,
and the time that passes counts.
"""

from collections.abc import Callable, Sequence
import os
import pickle
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import jax
from jax import export
import jax.numpy as jnp
import numpy as np

_SECONDS = 40.0  # that all rounds may take, where the programs are fast enough
_FEWEST, _MOST = 15, 200  # rounds
_SAMPLE = 5e-4  # a sample repeats its program for at least about this many seconds
_FEW = 3  # calls from which the number of calls in a sample is found


class Program(NamedTuple):
  """A program in a form that another process can run.

  Attributes:
    exported: the serialised program.
    arguments: its arguments; None for normal random numbers of the shapes that it takes.
  """

  exported: bytes
  arguments: list[np.ndarray] | None


def as_program(fn: Callable, *args: Any, with_values: bool = True) -> Program:
  """Returns the program of `fn(*args)`, compiled with XLA's own options wherever it runs.

  Args:
    fn: a function of trees of arrays.
    *args: trees of arrays; of `jax.ShapeDtypeStruct`s if the program is timed without values.
    with_values: whether the program is timed with these values.
  """
  leaves, treedef = jax.tree.flatten(args)
  flat = lambda *leaves: jax.tree.leaves(fn(*jax.tree.unflatten(treedef, leaves)))
  exported = export.export(jax.jit(flat))(*leaves)
  return Program(exported.serialize(), list(map(np.asarray, leaves)) if with_values else None)


def time_in_turn(programs: Sequence[Program], seconds: float = _SECONDS) -> np.ndarray:
  """Returns the seconds that one call of each program takes, in every round, float64 `[rounds, P]`.

  Every round runs the programs one after the other, each often enough for the clock. The call, the
  computation and the wait for the result count; compilation and the first call do not. There are
  as many rounds as fit into the given time, from 15 to 200. Where others use the machine too, the
  times of one program differ so much that the order of networks a few percent apart shows only
  over a hundred rounds; experiments/RESULTS.md (Latency) has numbers.

  Args:
    programs: P programs.
    seconds: about how long all rounds may take.

  Raises:
    RuntimeError: if the process that runs the programs fails.
  """
  if jax.default_backend() != "cpu":
    return _timed(programs, seconds)
  with tempfile.TemporaryDirectory() as folder:
    given, found = os.path.join(folder, "programs"), os.path.join(folder, "seconds.npy")
    with open(given, "wb") as file:
      pickle.dump((list(programs), seconds), file)
    done = subprocess.run(
      [sys.executable, "-m", __name__, given, found],
      env=_environment(),
      capture_output=True,
      text=True,
      check=False,
    )
    if done.returncode != 0:
      said = done.stderr.strip().splitlines()
      raise RuntimeError(
        f"the process that times programs failed: {said[-1] if said else 'killed'}"
      )
    return np.load(found)


def typical(seconds: np.ndarray) -> np.ndarray:
  """Returns the typical seconds of each program, `[P]`, without what made whole rounds slow.

  Every round is divided by its own median over the programs before the median over rounds is
  taken, so that a round in which the machine was slower counts like any other.

  Args:
    seconds: from `time_in_turn`, `[rounds, P]`.
  """
  level = np.median(seconds, axis=1)
  return np.median(seconds / level[:, None], axis=0) * np.median(level)


def _environment() -> dict[str, str]:
  """Returns the environment of the process that times programs on a CPU."""
  root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
  path = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
  return {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(path),
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "1",
    "JAX_ENABLE_X64": str(jax.config.jax_enable_x64),
    "XLA_FLAGS": "",  # those of a run make a device of every core
  }


def _timed(programs: Sequence[Program], seconds: float) -> np.ndarray:
  """Does in this process what `time_in_turn` describes."""
  clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
  noise: dict[tuple, jax.Array] = {}  # arrays of equal shapes are shared, to save memory
  calls = [_call(program, noise) for program in programs]
  for call in calls:
    call()
  once = np.array([min(_seconds(clock, call, 1) for _ in range(_FEW)) for call in calls])
  repeats = np.ceil(_SAMPLE / once).astype(int)
  rounds = int(np.clip(seconds / (once @ repeats), _FEWEST, _MOST))
  return np.array(
    [[_seconds(clock, call, times) for call, times in zip(calls, repeats, strict=True)]
     for _ in range(rounds)]
  )  # fmt: skip


def _call(program: Program, noise: dict[tuple, jax.Array]) -> Callable[[], Any]:
  """Returns a function that runs a program once and waits for its results."""
  exported = export.deserialize(program.exported)
  run = jax.jit(exported.call)
  if program.arguments is None:
    arguments = [_noise(value.shape, value.dtype, noise) for value in exported.in_avals]
  else:
    arguments = [jnp.asarray(value) for value in program.arguments]
  return lambda: jax.block_until_ready(run(*arguments))


def _noise(shape: tuple[int, ...], dtype: Any, noise: dict[tuple, jax.Array]) -> jax.Array:
  """Returns normal random numbers, the same for every call with this shape and dtype."""
  key = (shape, str(dtype))
  if key not in noise:
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    noise[key] = jnp.asarray(values).astype(dtype)
  return noise[key]


def _seconds(clock: Callable[[], float], call: Callable[[], Any], times: int) -> float:
  """Returns the mean seconds of some calls, one after the other."""
  start = clock()
  for _ in range(times):
    call()
  return (clock() - start) / times


def _main(given: str, found: str) -> None:
  """Runs in the process that times programs on a CPU.

  Args:
    given: file with the programs and the seconds that all rounds may take.
    found: file for the seconds.
  """
  # Both have to be set before JAX makes its threads.
  if hasattr(os, "sched_setaffinity"):  # macOS does not have this function
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  with open(given, "rb") as file:
    programs, seconds = pickle.load(file)
  np.save(found, _timed(programs, seconds))


if __name__ == "__main__":
  _main(*sys.argv[1:])
