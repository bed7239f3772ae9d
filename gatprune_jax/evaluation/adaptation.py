"""A few gradient steps on a masked network before it is scored.

The masks that lose least accuracy at first need not be the masks that recover best by fine-tuning.
A few steps show how well a masked network recovers, at a small part of the cost of fine-tuning.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gatprune_jax.data import Split
from gatprune_jax.errors import InputError
from gatprune_jax.networks import Network, Task

_MOMENTUM = 0.9


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
  """Settings of the gradient steps on a masked network before it is scored.

  Attributes:
    steps: number of steps of SGD with Nesterov momentum 0.9; 0 scores the weights as they are.
    batch_size: number of images in a step.
    learning_rate: learning rate of every step.
  """

  steps: int = 0
  batch_size: int = 64
  learning_rate: float = 0.05

  def __post_init__(self):
    """Raises InputError for values that training cannot use."""
    if self.steps < 0:
      raise InputError(f"adaptation steps is {self.steps}: it must not be negative")
    for name in ("batch_size", "learning_rate"):
      if getattr(self, name) <= 0:
        raise InputError(f"adaptation {name} is {getattr(self, name)}: it must be positive")


class AdaptationBatches(NamedTuple):
  """The batches and the learning rate of the steps.

  They are equal for all masks, so that the scores of masks can be compared.
  """

  x: jax.Array  # [K, B, ...] training images
  y: Any  # targets, tree of [K, B, ...]
  learning_rate: float


def adaptation_batches(config: AdaptationConfig, train: Split) -> AdaptationBatches:
  """Returns the first batches of the training split.

  Raises:
    InputError: the training split has too few images.
  """
  num = config.steps * config.batch_size
  if num > train.num:
    raise InputError(
      f"adaptation of {config.steps} steps with {config.batch_size} images needs {num} training "
      f"images, there are {train.num}: take fewer steps, or smaller batches"
    )
  batches = lambda rows: jnp.asarray(rows).reshape(config.steps, config.batch_size, *rows.shape[1:])
  first = train.first(num)
  return AdaptationBatches(batches(first.x), jax.tree.map(batches, first.y), config.learning_rate)


def adapt(network: Network, task: Task, variables: Any, adaptation: AdaptationBatches) -> Any:
  """Returns the variables after one step on each batch, with the network's state unchanged.

  Args:
    network: the masked network. Gradients are computed inside a loop, where XLA's convolution is
      slow on CPU, so the network's convolutions should come from `candidate_convolution`.
    task: provides the loss.
    variables: the variables before the first step.
    adaptation: K batches `[K, B, ...]` and the learning rate; without batches, the variables are
      returned as they are.
  """
  if len(adaptation.x) == 0:
    return variables
  optimizer = optax.sgd(adaptation.learning_rate, _MOMENTUM, nesterov=True)
  params, state = network.split(variables)

  def loss(params, x, y):
    outputs, _ = network.forward_train(network.merge(params, state), x)
    return task.loss(outputs, y).mean()

  def step(carry, batch):
    params, opt_state = carry
    updates, opt_state = optimizer.update(jax.grad(loss)(params, *batch), opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), None

  start = (params, optimizer.init(params))
  (params, _), _ = jax.lax.scan(step, start, (adaptation.x, adaptation.y))
  return network.merge(params, state)
