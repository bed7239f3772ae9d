"""Tests of `--config.model.factory`, with networks from outside and in real processes."""

import json
import os

import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.data import load_dataset
from tests.experiments.mains import RESNET, run

# A user's own module. It has a factory of an NNX network that fits the images and labels, and
# factories that fail.
MODULE = """
from flax import nnx
import gatprune_jax as gp

class Net(nnx.Module):
  def __init__(self, num_classes, channels, rngs):
    self.conv1 = nnx.Conv(channels, 6, (3, 3), strides=2, rngs=rngs)
    self.norm = nnx.BatchNorm(6, momentum=0.9, rngs=rngs)
    self.conv2 = nnx.Conv(6, 5, (3, 3), rngs=rngs)
    self.head = nnx.Linear(5, num_classes, rngs=rngs)

  def __call__(self, x):
    x = nnx.relu(self.norm(self.conv1(x)))
    return self.head(nnx.relu(self.conv2(x)).mean((1, 2)))

def make(num_classes, image_shape):
  assert image_shape == (8, 8, 1)
  return gp.from_nnx(Net(num_classes, image_shape[-1], nnx.Rngs(0)))

def counting(num_classes, image_shape):
  network = make(num_classes, image_shape)
  return gp.Network(
    lambda variables, x: network.eval_fn(variables, x).reshape(len(x), -1), network.train_fn,
    network.variables,
  )

def fail(num_classes, image_shape):
  raise KeyError("weights")

def other(num_classes, image_shape):
  return Net(num_classes, 1, nnx.Rngs(0))
"""


@pytest.fixture
def user_module(tmp_path, monkeypatch):
  (tmp_path / "users_networks.py").write_text(MODULE)
  monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def prune(workdir, factory, *arguments):
  return run(
    "prune", f"--workdir={workdir}", f"--config.model.factory=users_networks:{factory}", *RESNET,
    *arguments,
  )  # fmt: skip


@pytest.mark.slow  # other tests of mains prune a factory's network too, see `tiny`
def test_a_factory_network_is_trained_and_pruned(user_module, tmp_path):
  done = prune(tmp_path / "run", "make")
  assert done.returncode == 0, done.stderr
  assert "dense epoch 3/3" in done.stderr
  result = json.loads((tmp_path / "run" / "result.json").read_text())
  assert result["network"] == "users_networks:make"
  assert result["pruned"]["macs_ratio"] <= 0.25
  loaded = gp.load(tmp_path / "run" / "pruned")
  test = load_dataset().test
  accuracy = (np.asarray(loaded.apply(loaded.variables, test.x)).argmax(-1) == test.y).mean()
  assert accuracy == pytest.approx(result["pruned"]["test_accuracy"], abs=1e-6)


@pytest.mark.slow
def test_one_that_is_trained_already_is_not_trained_again(user_module, tmp_path):
  done = prune(tmp_path / "run", "make", "--config.dense.trained=True", "--config.search.updates=1")
  assert done.returncode == 0, done.stderr
  assert "dense epoch" not in done.stderr
  assert "search update 1/1" in done.stderr


@pytest.mark.parametrize(
  ("factory", "words"),
  [
    (
      "fail",
      "fails with KeyError: 'weights': it is called with the number of classes and the image",
    ),
    ("other", "returns a Net: it must return a gatprune_jax.Network"),
    (
      "nothing",
      "is not found (module 'users_networks' has no attribute 'nothing'): name MODULE:FU",
    ),
  ],
)
def test_factories_that_make_no_network_are_refused(user_module, tmp_path, factory, words):
  done = prune(tmp_path / "run", factory)
  assert done.returncode == 1
  (line,) = done.stderr.strip().splitlines()
  assert line.startswith(f"error: model.factory users_networks:{factory} ")
  assert words in line
  assert not (tmp_path / "run").exists()


def test_a_network_that_could_not_be_saved_is_refused_before_it_is_trained(user_module, tmp_path):
  done = prune(tmp_path / "run", "counting")
  assert done.returncode == 1
  (line,) = done.stderr.strip().splitlines()
  assert line.startswith("error: the network does not run at a batch of unknown size (TypeError: ")
  assert line.endswith("write the network without numbers that depend on the batch, such as len(x)")
  assert not (tmp_path / "run").exists()
