"""Tests that every config runs as a whole in its `:runlocal` variant, from stock directories."""

import json
import os

import numpy as np
import pytest

from experiments.common.settings import make_settings
from experiments.configs import (
  cifar10_16_resnet8,
  cifar10_latency,
  cifar10_resnet20,
  cifar10_resnet56,
  cifar100_resnet56,
  cifar100_vgg19,
  digits_resnet8,
  imagenet_resnet50,
)
from tests.data.directories import write_tfds
from tests.experiments.mains import run

CONFIGS = {
  "digits_resnet8": digits_resnet8,
  "cifar10_16_resnet8": cifar10_16_resnet8,
  "cifar10_latency": cifar10_latency,
  "cifar10_resnet20": cifar10_resnet20,
  "cifar10_resnet56": cifar10_resnet56,
  "cifar100_resnet56": cifar100_resnet56,
  "cifar100_vgg19": cifar100_vgg19,
  "imagenet_resnet50": imagenet_resnet50,
}
# The slow configs take up to minutes each, most of it compilation, and have nothing that the other
# one does not have. `test_mains` runs the digits.
MARKS = dict.fromkeys(
  (
    "digits_resnet8", "cifar10_16_resnet8", "cifar10_resnet20", "cifar10_resnet56",
    "cifar100_resnet56", "cifar100_vgg19", "cifar10_latency",
  ),
  pytest.mark.slow,
) | {"imagenet_resnet50": pytest.mark.long}  # fmt: skip
# Unless slow tests are asked for, small networks and smaller images replace those of the config.
# Compiling a network of ImageNet's form takes more than a minute.
SMALLER = {
  "digits_resnet8": {"model.widths": (4, 6, 8)},
  "cifar10_16_resnet8": {"model.widths": (4, 6, 8)},
  "cifar10_resnet20": {"model.name": "resnet8"},
  "imagenet_resnet50": {"model.name": "resnet8", "image_size": 32},
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp("tfds")
  write_tfds("cifar10", path, (120, 30), num_classes=10)
  write_tfds("cifar100", path, (120, 30), num_classes=10)
  write_tfds("imagenet2012", path, (100, 20), num_classes=2)
  rng = np.random.default_rng(0)
  images = lambda num: rng.integers(0, 256, (num, 16, 16, 3), np.uint8)
  labels = lambda num: np.arange(num, dtype=np.int32) % 10
  arrays = {"x": images(120), "y": labels(120), "x_test": images(30), "y_test": labels(30)}
  np.savez(path / "images.npz", **arrays)
  return path


@pytest.mark.parametrize("name", [pytest.param(n, marks=MARKS.get(n, ())) for n in CONFIGS])
def test_runlocal(name, directory, tmp_path):
  own = {
    "digits_resnet8": "",
    "cifar10_16_resnet8": directory / "images.npz",
    "cifar10_latency": directory / "images.npz",
  }
  data_dir = own.get(name, directory)
  settings = make_settings(CONFIGS[name].get_config("runlocal"))
  smaller = {} if os.environ.get("GATPRUNE_SLOW") == "1" else SMALLER.get(name, {})
  done = run(  # on one device, because that compiles faster
    "prune", f"--workdir={tmp_path}", f"--config=experiments/configs/{name}.py:runlocal",
    f"--config.data_dir={data_dir}", *(f"--config.{key}={new}" for key, new in smaller.items()),
    devices=1,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  with open(tmp_path / "result.json") as file:
    result = json.load(file)
  assert result["dataset"] == settings.dataset
  assert result["network"].startswith(smaller.get("model.name", settings.model.name))
  assert result["feasible"] is True
  assert set(result["resources"]) == set(settings.limits)
  for resource in result["resources"].values():
    assert resource["pruned"] <= resource["limit"] * (1 + 1e-12)


@pytest.mark.parametrize("name", CONFIGS)
def test_unknown_variants_are_refused(name):
  with pytest.raises(ValueError, match=f"variant 'gpu' of {name} is unknown: choose .*runlocal"):
    CONFIGS[name].get_config("gpu")
