"""Example networks from outside the package, with data and tasks, to be pruned by one call.

`python -m tests.pruning.examples FILE NAME...` prunes the named examples on as many devices as
XLA_FLAGS gives, and writes results that must not depend on the number of devices.
"""

import sys

import equinox as eqx
from flax import linen as nn
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import gatprune_jax as gp
from gatprune_jax.agent import PolicyConfig, PPOConfig
from gatprune_jax.data import Sizes

# The search is as short as possible, but every part of it still runs.
SEARCH = gp.SearchConfig(
  updates=2, samples=4, calibration_images=12, calibration_batch=6, refinement=2, elites=2,
  shortlist=2, chunk=1, adaptation=gp.AdaptationConfig(steps=1, batch_size=8),
  policy=PolicyConfig(layers=1, heads=1), ppo=PPOConfig(epochs=1),
)  # fmt: skip
FINETUNE = gp.Recipe(epochs=2, batch_size=8, learning_rate=0.01)
SIZES = Sizes(reward=16, select=8, test=8)


def inputs(seed=0, num=64, shape=(6, 6, 2)):
  """Returns noisy images of three kinds `[num, *shape]`, and the kind of each image `[num]`.

  Args:
    seed: seed of the random numbers.
    num: number of images.
    shape: shape of one image, [H, W, C].
  """
  rng = np.random.default_rng(seed)
  labels = np.arange(num) % 3
  kinds = rng.standard_normal((3, *shape))
  return (kinds[labels] + rng.standard_normal((num, *shape))).astype(np.float32), labels


class LinenNet(nn.Module):
  """A Linen network, with channels last."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Conv(6, (3, 3), strides=2)(x)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
    return nn.Dense(3)(nn.relu(nn.Conv(5, (3, 3))(x)).mean((1, 2)))


def linen():
  x, y = inputs()
  module = LinenNet()
  network = gp.from_linen(module, jax.jit(module.init)(jax.random.key(0), x[:1]))
  return network, gp.data.arrays(x, y, sizes=SIZES), gp.CLASSIFICATION


class NnxNet(nnx.Module):
  """An NNX network; batch norm and dropout keep their state in the module."""

  def __init__(self, rngs):
    self.conv1 = nnx.Conv(2, 6, (3, 3), strides=2, rngs=rngs)
    self.norm = nnx.BatchNorm(6, momentum=0.9, rngs=rngs)
    self.dropout = nnx.Dropout(0.1, rngs=rngs)
    self.conv2 = nnx.Conv(6, 5, (3, 3), rngs=rngs)
    self.head = nnx.Linear(5, 3, rngs=rngs)

  def __call__(self, x):
    x = self.dropout(nnx.relu(self.norm(self.conv1(x))))
    return self.head(nnx.relu(self.conv2(x)).mean((1, 2)))


def nnx_module():
  x, y = inputs()
  network = gp.from_nnx(NnxNet(nnx.Rngs(0)))
  return network, gp.data.arrays(x, y, sizes=SIZES), gp.CLASSIFICATION


class EquinoxNet(eqx.Module):
  """An Equinox network of one example, channels first; batch norm has a state beside the module."""

  conv1: eqx.nn.Conv2d
  norm: eqx.nn.BatchNorm
  conv2: eqx.nn.Conv2d
  head: eqx.nn.Linear

  def __init__(self, key, mode="batch"):
    keys = jax.random.split(key, 3)
    self.conv1 = eqx.nn.Conv2d(2, 6, 3, stride=2, padding=1, key=keys[0])
    self.norm = eqx.nn.BatchNorm(6, "batch", momentum=0.9, mode=mode)
    self.conv2 = eqx.nn.Conv2d(6, 5, 3, padding=1, key=keys[1])
    self.head = eqx.nn.Linear(5, 3, key=keys[2])

  def __call__(self, x, state):
    x, state = self.norm(self.conv1(x), state)
    return self.head(jax.nn.relu(self.conv2(jax.nn.relu(x))).mean((1, 2))), state


def equinox():
  x, y = inputs()
  network = gp.from_equinox(*eqx.nn.make_with_state(EquinoxNet)(jax.random.key(0)))
  data = gp.data.arrays(x.transpose(0, 3, 1, 2), y, sizes=SIZES)
  return network, data, gp.CLASSIFICATION


def conv(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def plain(apply, shapes):
  """Returns a network of plain functions without a state."""
  normal = np.random.default_rng(1).standard_normal
  variables = {name: jnp.asarray(0.3 * normal(s), jnp.float32) for name, s in shapes.items()}
  return gp.Network(apply, lambda v, x: (apply(v, x), {}), variables)


def segmentation():
  """Returns an example with a class for each pixel; the score is the share of correct pixels."""
  x, _ = inputs()
  y = (x.sum(-1) > 0).astype(np.int32)  # [n, H, W]

  def apply(v, x):
    return conv(jax.nn.relu(conv(jax.nn.relu(conv(x, v["a"])), v["b"])), v["c"])

  def loss(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean((1, 2))

  score = lambda logits, y: (logits.argmax(-1) == y).mean((1, 2))
  network = plain(apply, {"a": (3, 3, 2, 6), "b": (3, 3, 6, 5), "c": (1, 1, 5, 2)})
  return (
    network,
    gp.data.arrays(x, y, sizes=SIZES),
    gp.Task(loss=loss, score=score, metric="pixels"),
  )


def two_heads():
  """Returns an example with a label and a position, as in detection.

  Outputs and targets are dicts.
  """
  x, labels = inputs()
  y = {"label": labels, "box": x.mean((1, 2)).astype(np.float64)}

  def apply(v, x):
    features = jax.nn.relu(conv(jax.nn.relu(conv(x, v["a"])), v["b"])).mean((1, 2))
    return {"label": features @ v["label"], "box": features @ v["box"]}

  def loss(out, y):
    classes = optax.softmax_cross_entropy_with_integer_labels(out["label"], y["label"])
    return classes + ((out["box"] - y["box"]) ** 2).sum(-1)

  score = lambda out, y: (out["label"].argmax(-1) == y["label"]).astype(jnp.float32)
  shapes = {"a": (3, 3, 2, 6), "b": (3, 3, 6, 5), "label": (5, 3), "box": (5, 2)}
  return plain(apply, shapes), gp.data.arrays(x, y, sizes=SIZES), gp.Task(loss=loss, score=score)


def regression():
  """Returns an example that maps vectors to one number; its running mean is not trainable."""
  rng = np.random.default_rng(2)
  x = rng.standard_normal((64, 4)).astype(np.float32)
  y = x[:, :1] ** 2 - x[:, 1:2]

  def run(v, x, mean):
    hidden = jax.nn.relu(jax.nn.relu(x @ v["a"]) @ v["b"] - mean[None])
    return hidden @ v["c"]

  def eval_fn(v, x):
    return run(v, x, v["mean"])

  def train_fn(v, x):
    mean = (jax.nn.relu(x @ v["a"]) @ v["b"]).mean(0)
    return run(v, x, mean), {"mean": 0.9 * v["mean"] + 0.1 * mean}

  shapes = {"a": (4, 8), "b": (8, 6), "c": (6, 1), "mean": (6,)}
  network = plain(eval_fn, shapes)
  trains = {"a": True, "b": True, "c": True, "mean": False}
  network = gp.Network(eval_fn, train_fn, network.variables, trainable=trains)
  error = lambda out, y: ((out - y) ** 2)[:, 0]
  task = gp.Task(loss=error, score=lambda out, y: -error(out, y), metric="minus squared error")
  return network, gp.data.arrays(x, y, sizes=SIZES), task


EXAMPLES = {
  "linen": linen,
  "nnx": nnx_module,
  "equinox": equinox,
  "segmentation": segmentation,
  "two_heads": two_heads,
  "regression": regression,
}


def prune(name, **options):
  """Prunes an example to half of its MACs, and returns network, data and outcome."""
  network, data, task = EXAMPLES[name]()
  criteria = ("random", "l1", "taylor")
  options = {"search": SEARCH, "finetune": FINETUNE, "criteria": criteria, **options}
  pruned = gp.prune(network, data, {"macs": 0.5}, task=task, progress=False, **options)
  return network, data, pruned


def main(path, *names):
  out = {}
  for name in names:
    _, _, pruned = prune(name)
    out[f"{name} mask"] = pruned.mask
    out[f"{name} scores"] = np.array([row[5:9] for row in pruned.rows])
    leaves = jax.tree.leaves(pruned.network.variables)
    out |= {f"{name} variable {i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
  np.savez(path, **out)


if __name__ == "__main__":
  main(*sys.argv[1:])
