"""A few gradient steps on a masked network before it is scored.

The masks that lose least accuracy at first need not be the masks that recover best by fine-tuning.
A few steps show how well a masked network recovers, at a small part of the cost of fine-tuning. The
steps are a fine-tuning in small: the learning rate falls to zero, and the dense network teaches.
Both make the scores agree better with the accuracy after fine-tuning (`experiments.fidelity`).
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gatprune_jax.data import Split
from gatprune_jax.errors import InputError
from gatprune_jax.networks import Network, Task, fast_network

_MOMENTUM = 0.9
_TEMPERATURE = 2.0  # of the teacher's and the student's softmax, as in `Recipe`


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
  """Settings of the gradient steps on a masked network before it is scored.

  Attributes:
    steps: number of steps of SGD with Nesterov momentum 0.9; 0 scores without any.
    batch_size: number of images in a step.
    learning_rate: learning rate of the first step, from which it falls linearly to zero.
    distillation: weight in [0, 1] of imitating the dense network in the loss; the rest of the
      weight is that of the targets.
  """

  steps: int = 16
  batch_size: int = 64
  learning_rate: float = 0.05
  distillation: float = 0.9

  def __post_init__(self):
    """Raises InputError for values that training cannot use."""
    if self.steps < 0:
      raise InputError(f"adaptation steps is {self.steps}: it must not be negative")
    for name in ("batch_size", "learning_rate"):
      if getattr(self, name) <= 0:
        raise InputError(f"adaptation {name} is {getattr(self, name)}: it must be positive")
    if not 0 <= self.distillation <= 1:
      raise InputError(
        f"adaptation distillation is {self.distillation}: it must be a weight in [0, 1]"
      )


class AdaptationBatches(NamedTuple):
  """The batches of the steps, and how much is learned from them.

  They are equal for all masks, so that the scores of masks can be compared.
  """

  x: jax.Array  # [K, B, ...] training images
  y: Any  # targets, tree of [K, B, ...]
  teacher: Any  # the dense network's outputs, tree of [K, B, ...]
  learning_rate: float
  distillation: float


def adaptation_batches(
  config: AdaptationConfig, train: Split, network: Network
) -> AdaptationBatches:
  """Returns the first batches of the training split, which begins anew where it ends.

  Args:
    config: number, size and learning rate of the steps.
    train: the training split.
    network: the dense network, which is the teacher.
  """
  shape = config.steps, config.batch_size
  first = train.first(math.prod(shape))
  places = (np.arange(math.prod(shape)) % train.num).reshape(shape)
  batches = lambda rows: jnp.asarray(rows[places])
  x, y = batches(first.x), jax.tree.map(batches, first.y)
  eval_fn = fast_network(network).eval_fn
  teach = lambda variables, x: jax.lax.map(lambda batch: eval_fn(variables, batch), x)
  teacher = jax.jit(teach)(network.variables, x) if config.steps else ()
  return AdaptationBatches(x, y, teacher, config.learning_rate, config.distillation)


def adapt(network: Network, task: Task, variables: Any, adaptation: AdaptationBatches) -> Any:
  """Returns the variables after one step on each batch, with the network's state unchanged.

  Step k of K minimises (1 - w) L(y, f(x)) + w D(teacher(x), f(x)) on its batch by Nesterov's method
  with learning rate (1 - k / K) r, where k = 0 is the first step.

  Args:
    network: the masked network. Gradients are computed inside a loop, where XLA's convolution is
      slow on CPU, so the network's convolutions should come from `candidate_convolution`.
    task: provides L, its loss, and D, its imitation loss.
    variables: the variables before the first step.
    adaptation: K batches `[K, B, ...]`, the learning rate r, and the weight w; without batches, the
      variables are returned as they are.
  """
  num_steps, weight = len(adaptation.x), adaptation.distillation
  if num_steps == 0:
    return variables
  falling = lambda step: adaptation.learning_rate * (1 - step / num_steps)
  optimizer = optax.sgd(falling, _MOMENTUM, nesterov=True)
  params, state = network.split(variables)

  def loss(params, x, y, teacher):
    outputs, _ = network.forward_train(network.merge(params, state), x)
    imitation = task.imitation(outputs, teacher, _TEMPERATURE).mean()
    return (1 - weight) * task.loss(outputs, y).mean() + weight * imitation

  def step(carry, batch):
    params, opt_state = carry
    updates, opt_state = optimizer.update(jax.grad(loss)(params, *batch), opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), None

  start = (params, optimizer.init(params))
  (params, _), _ = jax.lax.scan(step, start, (adaptation.x, adaptation.y, adaptation.teacher))
  return network.merge(params, state)
