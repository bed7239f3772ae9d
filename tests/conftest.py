"""Settings for all tests, and the small networks that several tests share."""

import os

from tests.compiler import quickly

# These variables must be set before jax is imported, and the processes that tests start inherit
# them. Tests compile the same programs again and again; the cache on disk finds a compiled program
# by a hash of its text.
os.environ["JAX_PLATFORMS"] = os.environ.get("GATPRUNE_PLATFORM", "cpu")
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.abspath(".pytest_cache/jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
if os.environ["JAX_PLATFORMS"] == "cpu":
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quickly()}"

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax.models import cifar_resnet, eval_function, train_function
from gatprune_jax.networks import Network

jax.config.update("jax_numpy_rank_promotion", "raise")


_HERE = os.path.dirname(os.path.abspath(__file__))
# {marker: the variables with which its tests run}
_ASKED_FOR = {"long": ("GATPRUNE_LONG", "GATPRUNE_SLOW"), "slow": ("GATPRUNE_SLOW",)}

# Files in these folders take long. They come first, so that both workers have short ones in the end
# and neither waits for the other.
_FIRST = ("experiments", "pruning", "search", "launch")


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: item.path.relative_to(_HERE).parts[0] not in _FIRST)
  for marker, variables in _ASKED_FOR.items():
    if any(os.environ.get(name) == "1" for name in variables):
      continue
    for item in items:
      if item.get_closest_marker(marker):
        item.add_marker(pytest.mark.skip(reason=f"set {variables[0]}=1 to run it"))


def perturbed(variables, seed=0):
  """Returns variables with noise added: no two channels are alike, and variances stay positive."""
  rng = np.random.default_rng(seed)

  def move(path, leaf):
    # This is done in NumPy, because JAX would compile every operation for every shape.
    leaf = np.asarray(leaf)
    noise = 0.3 * rng.standard_normal(leaf.shape).astype(leaf.dtype)
    return jnp.asarray(abs(leaf + noise) + 0.1 if path[-1].key == "var" else leaf + noise)

  return jax.tree.map_with_path(move, variables)


class TwoLayers(nn.Module):
  """The smallest network in which one hidden group feeds another, so that it compiles quickly."""

  num_classes: int = 5
  momentum: float = 0.9  # of the running statistics

  @nn.compact
  def __call__(self, x, train=False):
    for width in (6, 8):
      x = nn.Conv(width, (3, 3), strides=2, use_bias=False)(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=self.momentum)(x))
    return nn.Dense(self.num_classes)(x.mean((1, 2)))


class Example:
  """A small network with variables, random images and random labels."""

  def __init__(self, module, shape=(8, 8, 2), num_classes=5, num_images=12):
    self.module = module
    self.eval_fn, self.train_fn = eval_function(self.module), train_function(self.module)
    rng = np.random.default_rng(1)
    self.x = rng.standard_normal((num_images, *shape)).astype(np.float32)
    self.y = rng.integers(0, num_classes, num_images).astype(np.int32)
    self.variables = perturbed(jax.jit(self.module.init)(jax.random.key(0), self.x[:1]))
    self.network = Network(self.eval_fn, self.train_fn, self.variables)


def small_resnet(shortcut, widths=(4, 6, 8)):
  return cifar_resnet(8, 5, widths, shortcut)


@pytest.fixture(scope="session", params=["A", "B"])
def example(request):
  return Example(small_resnet(request.param))


@pytest.fixture(scope="session")
def example_b():
  return Example(small_resnet("B"))


@pytest.fixture(scope="session")
def two_layers():
  return Example(TwoLayers())
