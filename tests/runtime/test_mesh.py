"""Tests that several devices give the same results as one device, with few collectives."""

import glob
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.compiler import quickly
from tests.search.test_search import CONFIG

COLLECTIVE = re.compile(
  r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?\("
)
BYTES = {"f32": 4, "s32": 4, "pred": 1}
NUM_IMAGES = 18  # of the reward split, half of the 36 images of `make_problem`


def run_on(num_devices, folder):
  """Runs `on_devices`, and returns its results and the directory of the compiled programs."""
  path, programs = os.path.join(folder, "out.npz"), os.path.join(folder, "programs")
  flags = (
    f"--xla_force_host_platform_device_count={num_devices}", f"--xla_dump_to={programs}",
    "--xla_dump_hlo_as_text", quickly(),
    "--xla_dump_hlo_module_re=.*(sample|score_first|improve|confirm|step_on).*",
  )  # fmt: skip
  # Programs from the compilation cache would not be compiled, and so not be written to the folder.
  environment = {**os.environ, "XLA_FLAGS": " ".join(flags), "JAX_ENABLE_COMPILATION_CACHE": "0"}
  command = [sys.executable, "-m", "tests.runtime.on_devices", path]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
  assert done.returncode == 0, done.stderr
  with np.load(path) as file:
    return dict(file), programs


@pytest.fixture(scope="module")
def single(tmp_path_factory):
  return run_on(1, tmp_path_factory.mktemp("single"))[0]


@pytest.fixture(
  scope="module",
  params=[pytest.param(4, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.slow)],
)
def several(request, tmp_path_factory):
  """Returns the number of devices, their results, and the folder of their compiled programs.

  Neither 4 nor 3 devices divide the batch of ten. 4 divides the number of samples, and 3 the number
  of candidates.
  """
  return request.param, *run_on(request.param, tmp_path_factory.mktemp("several"))


def test_results_do_not_depend_on_the_number_of_devices(single, several):
  _, results, _ = several
  assert results.keys() == single.keys()
  for name, values in single.items():
    np.testing.assert_allclose(results[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_masks_and_candidates_are_computed_as_on_one_device(single, several):
  # Each device computes one mask at a time, or one candidate after the other, which is the very
  # same program as on one device.
  _, results, _ = several
  exact = [name for name in single if name.startswith(("search masks", "search scores", "candi"))]
  assert len(exact) > 10
  fed = ("photographs 0", "photographs 1", "labels 0", "labels 1")
  for name in (*exact, "search accuracy", *fed):
    np.testing.assert_array_equal(results[name], single[name], err_msg=name)


def collectives(path):
  """Returns {kind: (number, bytes of the results)} of the collectives in a compiled program."""
  found = {}
  with open(path) as file:
    for shapes, kind, _ in COLLECTIVE.findall(file.read()):
      sizes = [
        BYTES[dtype] * math.prod(map(int, filter(None, shape.split(","))))
        for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", shapes)
      ]
      number, size = found.get(kind, (0, 0))
      found[kind] = (number + 1, size + sum(sizes))
  return found


def compiled(programs, name):
  """Returns the paths of the compiled programs of a name, in the order of their compilation."""
  return sorted(glob.glob(os.path.join(programs, f"*jit_{name}*.cpu_after_optimizations.txt")))


@pytest.mark.parametrize("name", ["score_first", "improve"])
def test_no_batch_of_an_update_waits_for_threads(several, name):
  # A LAPACK call on a batch waits for other threads. Where devices wait for each other, that call
  # could wait for ever; see the module `cores`.
  *_, programs = several
  (path,) = compiled(programs, name)
  with open(path) as file:
    calls = [line for line in file if "lapack_" in line]
  sizes = [shape.split(",") for line in calls for shape in re.findall(r"f32\[([\d,]*)\]", line)]
  assert len(calls) >= 2  # a factorisation and a solve
  assert max(map(len, sizes)) == 2


def test_updates_and_steps_hold_few_collectives(several):
  num_devices, _, programs = several
  for name in ("sample", "improve", "confirm"):
    (path,) = compiled(programs, name)
    assert collectives(path) == {}
  # The scores and the losses of all masks of a batch are gathered at once: one float for each mask
  # and image, the masks in equal shares.
  (path,) = compiled(programs, "score_first")
  per_image = 4 * num_devices * math.ceil(CONFIG.samples / num_devices)
  assert collectives(path) == {"all-gather": (2, 2 * per_image * NUM_IMAGES)}
  dense, candidates = map(collectives, compiled(programs, "_step_on"))
  # A step of the candidates gathers the loss and the accuracy of each device's candidate, and
  # reduces whether to roll back.
  per_step = 4 * num_devices
  assert candidates == {"all-gather": (2, 2 * per_step), "all-reduce": (1, 4)}
  # Mixup reverses the batch, which permutes rows between devices. All other collectives are sums
  # over the batch: of two normalisations, 6 and 8 channels wide, in both passes; of the gradients;
  # and of loss, accuracy and the flag of numbers that are not finite.
  assert dense.keys() == {"all-reduce", "collective-permute"}
  parameters = 2 * 9 * 6 + 6 * 9 * 8 + 2 * (6 + 8) + 8 * 5 + 5
  statistics = 4 * (6 + 8)
  number, size = dense["all-reduce"]
  assert 4 * parameters <= size <= 4 * (parameters + statistics + 8)
  assert number <= 12
