"""One gradient step on a network's weights."""

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
  """What one gradient step learns from."""

  x: jax.Array  # inputs [B, ...], mixed already
  y: Any  # targets, tree of [B, ...]
  teacher: Any  # the teacher's outputs; not read where the recipe does not distil
  share: jax.Array | None = None  # of y in the loss, the rest is y in reverse order; None: all


@flax.struct.dataclass
class TrainState:
  """What one gradient step carries to the next."""

  variables: Any
  average: Any  # of the variables; the variables themselves where the recipe does not average
  opt_state: Any
  health: Health


def init_train_state(
  network: Network, optimizer: optax.GradientTransformation, variables: Any
) -> TrainState:
  """The state before the first step; the average starts at the variables."""
  params, _ = network.split(variables)
  return TrainState(variables, variables, optimizer.init(params), healthy())


def training_loss(task: Task, recipe: Recipe, outputs: Any, batch: Batch) -> jax.Array:
  """(1 - w) L(y, f(x)) + w D(teacher(x), f(x)), mean over the batch.

  Args:
    task: L is its loss, labels smoothed as the recipe says, D its imitation.
    recipe: w is `distillation`.
    outputs: f(x), of the student.
    batch: its targets y, mixed in its share, and the teacher's outputs.
  """
  loss_fn = task.training_loss(recipe.label_smoothing)
  loss = loss_fn(outputs, batch.y).mean()
  if batch.share is not None:  # on several devices, turning round is communication
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
  """One gradient step on one batch; pure and unbatched over candidates.

  Where the loss, its gradient or an updated variable is not finite, the state stays as it was, but
  for the count of such steps.

  Args:
    network: its functions, and what trains.
    task: loss and score.
    optimizer: acts on the leaves that train.
    recipe: how the loss is made.
    state: weights and optimiser state.
    batch: what to learn from.

  Returns:
    The next state, and of the batch the scalar `loss` and the task's metric by its name.
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
  """d old + (1 - d) new; of what is counted, the new value."""
  return d * old + (1 - d) * new if jnp.issubdtype(new.dtype, jnp.inexact) else new
