"""Random convolutional networks in NNX and in Equinox, each determined by a seed.

Their variables are states of NNX modules and Equinox modules, and not dicts as in Linen.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import equinox as eqx
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from tests.channels.random_draws import Draw

CHANNELS, CLASSES = 3, 4
BATCH = {"in_axes": (0, None), "out_axes": (0, None), "axis_name": "batch"}


@dataclasses.dataclass(frozen=True)
class Stage:
  """A convolution with batch norm, perhaps after a depthwise one, perhaps with a shortcut."""

  width: int
  kernel: int
  depthwise: bool
  normed: bool


@dataclasses.dataclass(frozen=True)
class ContainerNetwork:
  """What one seed draws."""

  library: str  # "nnx" or "equinox"
  stages: tuple[Stage, ...]
  hidden: int  # width of a dense layer before the logits; 0: none


def draw_container(seed: int) -> ContainerNetwork:
  """Returns the architecture of a seed; seeds are of NNX and of Equinox in turn."""
  draw = Draw(seed)
  widths = [draw.between(2, 7) for _ in range(draw.between(2, 4))]
  for k in range(1, len(widths)):  # equal widths are joined by a shortcut
    widths[k] = widths[k - 1] if draw.chance(0.4) else widths[k]
  stages = [Stage(width, draw.of(1, 3), draw.chance(0.3), draw.chance(0.7)) for width in widths]
  return ContainerNetwork(("nnx", "equinox")[seed % 2], tuple(stages), draw.of(0, 5))


class NnxCNN(nnx.Module):
  """A draw as an NNX module: `[n, h, w, c]` to logits."""

  def __init__(self, network, rngs):
    convs, depthwise, norms, width = [], [], [], CHANNELS
    for stage in network.stages:
      size = (stage.kernel, stage.kernel)
      grouped = {"feature_group_count": width, "rngs": rngs}
      depthwise.append(nnx.Conv(width, width, (3, 3), **grouped) if stage.depthwise else None)
      convs.append(nnx.Conv(width, stage.width, size, use_bias=not stage.normed, rngs=rngs))
      norms.append(nnx.BatchNorm(stage.width, rngs=rngs) if stage.normed else None)
      width = stage.width
    self.depthwise, self.convs, self.norms = map(nnx.List, (depthwise, convs, norms))
    self.hidden = nnx.Linear(width, network.hidden, rngs=rngs) if network.hidden else None
    self.head = nnx.Linear(network.hidden or width, CLASSES, rngs=rngs)

  def __call__(self, x):
    for depthwise, conv, norm in zip(self.depthwise, self.convs, self.norms, strict=True):
      y = conv(x if depthwise is None else depthwise(x))
      y = y if norm is None else norm(y)
      x = nnx.relu(y + x if y.shape == x.shape else y)
    x = x.mean((1, 2))
    return self.head(x if self.hidden is None else nnx.relu(self.hidden(x)))


class EquinoxCNN(eqx.Module):
  """A draw as an Equinox module: `[c, h, w]` and a state to logits and the state."""

  depthwise: list[eqx.nn.Conv2d | None]
  convs: list[eqx.nn.Conv2d]
  norms: list[eqx.nn.BatchNorm | None]
  hidden: eqx.nn.Linear | None
  head: eqx.nn.Linear

  def __init__(self, network, key):
    self.depthwise, self.convs, self.norms, width = [], [], [], CHANNELS
    for stage in network.stages:
      key, *keys = jax.random.split(key, 3)
      grouped = {"padding": 1, "groups": width, "key": keys[0]}
      self.depthwise.append(eqx.nn.Conv2d(width, width, 3, **grouped) if stage.depthwise else None)
      padded = {"padding": stage.kernel // 2, "use_bias": not stage.normed, "key": keys[1]}
      self.convs.append(eqx.nn.Conv2d(width, stage.width, stage.kernel, **padded))
      norm = eqx.nn.BatchNorm(stage.width, "batch", mode="ema") if stage.normed else None
      self.norms.append(norm)
      width = stage.width
    keys = jax.random.split(key)
    self.hidden = eqx.nn.Linear(width, network.hidden, key=keys[0]) if network.hidden else None
    self.head = eqx.nn.Linear(network.hidden or width, CLASSES, key=keys[1])

  def __call__(self, x, state):
    for depthwise, conv, norm in zip(self.depthwise, self.convs, self.norms, strict=True):
      y = conv(x if depthwise is None else depthwise(x))
      if norm is not None:
        y, state = norm(y, state)
      x = jax.nn.relu(y + x if y.shape == x.shape else y)
    x = x.mean((1, 2))
    return self.head(x if self.hidden is None else jax.nn.relu(self.hidden(x))), state


def functions(network: ContainerNetwork) -> tuple[Callable, Callable, Any]:
  """Returns the functions of a draw in eval and in train mode, and its initial variables.

  Both take variables `{"params": ..., "rest": ...}` and images `[n, h, w, c]`. The function in
  train mode returns the logits and {"rest": what was updated}.
  """
  return (_nnx if network.library == "nnx" else _equinox)(network)


def _nnx(network):
  definition, params, rest = nnx.split(NnxCNN(network, nnx.Rngs(0)), nnx.Param, ...)

  def eval_fn(variables, x):
    module = nnx.merge(definition, variables["params"], variables["rest"])
    module.eval()
    return module(x)

  def train_fn(variables, x):
    module = nnx.merge(definition, variables["params"], variables["rest"])
    module.train()
    logits = module(x)
    return logits, {"rest": nnx.split(module, nnx.Param, ...)[2]}

  return eval_fn, train_fn, {"params": params, "rest": rest}


def _equinox(network):
  model, state = eqx.nn.make_with_state(EquinoxCNN)(network, jax.random.key(0))
  params, train_static = eqx.partition(model, eqx.is_array)
  _, eval_static = eqx.partition(eqx.nn.inference_mode(model), eqx.is_array)

  def run(variables, x, static):
    module = eqx.combine(variables["params"], static)
    return jax.vmap(module, **BATCH)(x.transpose(0, 3, 1, 2), variables["rest"])

  def train_fn(variables, x):
    logits, state = run(variables, x, train_static)
    return logits, {"rest": state}

  return lambda variables, x: run(variables, x, eval_static)[0], train_fn, {
    "params": params, "rest": state,
  }  # fmt: skip


def randomised(variables: Any, seed: int) -> Any:
  """Returns variables with random float64 values of order one; those of "rest" are positive."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      return leaf
    noise = rng.standard_normal(leaf.shape)
    if path[0].key == "rest":
      return abs(noise) + 0.2
    # The axis that differs most from the others is not needed: any scale of order one will do.
    return noise * np.sqrt(2 * max(leaf.shape, default=1) / leaf.size) if leaf.ndim > 1 else noise

  return jax.tree.map_with_path(draw, variables)
