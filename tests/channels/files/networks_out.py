"""What the tests of LiteRT and ONNX files share: networks, operations, and the laws of a file."""

import os
import site
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import exporting
from experiments.benchmarks.detector import Detector
import gatprune_jax as gp
from gatprune_jax.channels import Compact
from tests.channels.laws import random_mask
from tests.conftest import Example, small_resnet

W = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
X = np.random.default_rng(1).standard_normal((3, 6)).astype(np.float32)
SLOW = pytest.mark.slow


def images(y):
  """Returns rows `[n, 6]` as images `[n, 2, 3, 1]`."""
  return y.reshape(-1, 2, 3, 1)


# Functions of a matrix and of rows. Each has operations that are not in every network.
OPERATIONS = {
  "attention": lambda v, x: jnp.einsum(
    "bhd,bgd->bhg", (x @ v).reshape(-1, 2, 3), x.reshape(-1, 2, 3)
  ),
  "bilinear": lambda v, x: jax.image.resize(images(x @ v), (x.shape[0], 4, 6, 1), "bilinear"),
  "clip": lambda v, x: jax.nn.relu6(x @ v) + jnp.clip(x, -1, 1),
  "concatenate": lambda v, x: jnp.concatenate([x @ v, -x, jnp.broadcast_to(v[:1], x.shape)], 1),
  "dictionary": lambda v, x: {"a": x @ v, "b": (x[:, :2] + 1,)},
  "flip": lambda v, x: jnp.flip(x @ v, 1)[:, -1:],
  "fold": lambda v, x: (x @ v).reshape(x.shape[0] * 2, 3).sum(1).reshape(x.shape[0], 2),
  "gelu": lambda v, x: jax.nn.gelu(x @ v, approximate=False) + jax.nn.silu(x),
  "largest": lambda v, x: (jnp.argmax(x @ v, -1), jax.lax.top_k(x @ v, 2)),
  "layer_norm": lambda v, x: (
    (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) @ v
  ),
  "max_pool": lambda v, x: jax.lax.reduce_window(
    images(x @ v), -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME"
  ),
  "pad": lambda v, x: jnp.pad(x @ v, ((0, 0), (1, 2)))[:, ::2],
  "permuted": lambda v, x: jnp.take(x @ v, np.array([2, 0, 1]), axis=1) + x[:, :3],
  "positions": lambda v, x: images(x @ v)[:, np.array([[0], [1]]), np.array([[2, 0]])],
  "repeat": lambda v, x: jnp.repeat(jnp.repeat(images(x @ v), 2, axis=1), 2, axis=2),
  "softmax": lambda v, x: jax.nn.softmax(x @ v) @ v,
  "sum_pool": lambda v, x: jax.lax.reduce_window(
    images(x @ v), 0.0, jax.lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "SAME"
  ),
}


def operation(name):
  """Returns a network of one function of `OPERATIONS`, and its input."""
  return Compact(OPERATIONS[name], W), X


def resnet_a():
  """Returns a ResNet with padded shortcuts under a random mask, and images."""
  e = Example(small_resnet("A"))
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  mask = random_mask(graph, np.random.default_rng(2))
  return gp.compact(graph, e.eval_fn, e.variables, mask), e.x


def detector():
  """Returns a narrow detector with three heads under a random mask, and images."""
  module = Detector(width=4, num_classes=3)
  x = np.random.default_rng(3).standard_normal((2, 32, 32, 3)).astype(np.float32)
  variables = exporting.random_variables(module, x)
  graph = gp.trace(module.apply, variables, x)
  mask = random_mask(graph, np.random.default_rng(4))
  return gp.compact(graph, module.apply, variables, mask), x


def published(name, part):
  """Returns a network of the benchmark, "dense" or "pruned", and images."""
  pair = exporting.pair(name, batch=2)
  return getattr(pair, part), pair.x


NETWORKS = [
  pytest.param(resnet_a, id="resnet_a"),
  pytest.param(detector, id="detector"),
  *(
    pytest.param(lambda n=name, p=part: published(n, p), id=f"{part}_{name}", marks=SLOW)
    for name in exporting.NETWORKS
    for part in ("dense", "pruned")
  ),
]


def assert_no_path_of_this_machine(path):
  """Raises if a file holds a path of this machine, or of any source file."""
  content = path.read_bytes()
  here = {os.getcwd(), sys.prefix, *site.getsitepackages(), os.path.dirname(path)}
  assert b".py" not in content
  assert not [place for place in here if str(place).encode() in content]
