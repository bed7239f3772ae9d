"""Settings of every test, and the networks that several of them share."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"  # before jax is imported

import jax
import numpy as np
import pytest

from gatprune_jax.models import cifar_resnet, eval_function, train_function

jax.config.update("jax_numpy_rank_promotion", "raise")


def perturbed(variables, seed=0):
  """Variables away from their initial values, variances positive: no two channels alike."""
  rng = np.random.default_rng(seed)

  def move(path, leaf):
    noise = 0.3 * rng.standard_normal(leaf.shape).astype(leaf.dtype)
    return abs(leaf + noise) + 0.1 if path[-1].key == "var" else leaf + noise

  return jax.tree.map_with_path(move, variables)


class Example:
  """A small ResNet with weights, images and labels."""

  def __init__(self, shortcut, widths=(4, 6, 8), shape=(8, 8, 2), num_classes=5, num_images=12):
    self.module = cifar_resnet(8, num_classes, widths, shortcut)
    self.eval_fn, self.train_fn = eval_function(self.module), train_function(self.module)
    rng = np.random.default_rng(1)
    self.x = rng.standard_normal((num_images, *shape)).astype(np.float32)
    self.y = rng.integers(0, num_classes, num_images).astype(np.int32)
    self.variables = perturbed(jax.jit(self.module.init)(jax.random.key(0), self.x[:1]))


@pytest.fixture(scope="session", params=["A", "B"])
def example(request):
  return Example(request.param)


@pytest.fixture(scope="session")
def example_b():
  return Example("B")
