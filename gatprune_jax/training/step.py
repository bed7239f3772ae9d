"""One gradient step on a network's weights, with its loss and its state."""

import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from gatprune_jax.networks import Network, Task
from gatprune_jax.runs.health import Health, all_finite, healthy, take_if_finite
from gatprune_jax.training.recipe import Recipe


class Batch(NamedTuple):
  """The examples of one gradient step."""

  x: jax.Array  # inputs [B, ...], after mixup
  y: Any  # targets, tree of [B, ...]
  teacher: Any  # the teacher's outputs on x; not read where the recipe does not distil
  # Weight of y in the loss, a scalar; y in reverse order has the rest. None: no mixup.
  share: jax.Array | None = None


@flax.struct.dataclass
class TrainState:
  """State that one gradient step passes on to the next."""

  variables: Any
  average: Any  # moving average of the variables; equal to them where the recipe does not average
  opt_state: Any
  health: Health


def init_train_state(
  network: Network, optimizer: optax.GradientTransformation, variables: Any
) -> TrainState:
  """Returns the state before the first step; the average starts at the variables.

  Args:
    network: says which of the variables train.
    optimizer: from `make_optimizer`.
    variables: the network's variables to start from.
  """
  params, _ = network.split(variables)
  return TrainState(variables, variables, optimizer.init(params), healthy())


def training_loss(task: Task, recipe: Recipe, outputs: Any, batch: Batch) -> jax.Array:
  """(1 - w) L(y, f(x)) + w D(teacher(x), f(x)), mean over the batch.

  With mixup of share s, L(y, f(x)) is s L(y, f(x)) + (1 - s) L(y in reverse order, f(x)) (Zhang et
  al. 2018, arXiv 1710.09412).

  Args:
    task: gives L, its loss with labels smoothed as the recipe says, and D, its imitation loss.
    recipe: gives w, its `distillation`, and the temperature of D.
    outputs: f(x), the student's outputs, a tree of `[B, ...]`.
    batch: gives the targets y, the share s, and the teacher's outputs.
  """
  loss_fn = task.training_loss(recipe.label_smoothing)
  loss = loss_fn(outputs, batch.y).mean()
  # The batch is reversed only with mixup, because devices must communicate to reverse it.
  if batch.share is not None:
    turned = jax.tree.map(lambda rows: rows[::-1], batch.y)
    loss = batch.share * loss + (1 - batch.share) * loss_fn(outputs, turned).mean()
  if recipe.distillation == 0:
    return loss
  imitation = task.imitation(outputs, batch.teacher, recipe.temperature).mean()
  return (1 - recipe.distillation) * loss + recipe.distillation * imitation


def train_step(
  network: Network,
  task: Task,
  optimizer: optax.GradientTransformation,
  recipe: Recipe,
  state: TrainState,
  batch: Batch,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Takes one gradient step on one batch.

  This is a pure function of one network's state, so that it can be mapped over candidates. Where
  the loss, its gradient or an updated variable is not finite, the state stays as it was, except for
  the counts in `health`.

  Args:
    network: the functions to train, and which of the variables train.
    task: gives loss and score.
    optimizer: updates the leaves that train.
    recipe: defines the loss.
    state: weights, optimiser state and counts.
    batch: the examples.

  Returns:
    The next state, and two scalars of the batch: the mean loss under the name "loss", and the mean
    score under the name of the task's metric.
  """
  params, rest = network.split(state.variables)

  def loss_fn(params):
    outputs, updated = network.forward_train(network.merge(params, rest), batch.x)
    return training_loss(task, recipe, outputs, batch), (outputs, updated)

  (loss, (outputs, rest)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
  updates, opt_state = optimizer.update(grads, state.opt_state, params)
  updates = jax.tree.map(lambda leaf: state.health.rate * leaf, updates)
  variables = network.merge(optax.apply_updates(params, updates), rest)
  average = jax.tree.map(functools.partial(_averaged, recipe.average), state.average, variables)
  metrics = {"loss": loss, task.metric: task.score(outputs, batch.y).mean()}
  finite = all_finite((loss, grads, variables))
  new = TrainState(variables, average, opt_state, state.health)
  return take_if_finite(finite, new, state), metrics


def _averaged(d: float, old: jax.Array, new: jax.Array) -> jax.Array:
  """d old + (1 - d) new for floating-point arrays; other arrays take the new value."""
  return d * old + (1 - d) * new if jnp.issubdtype(new.dtype, jnp.inexact) else new
