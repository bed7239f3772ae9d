"""One gradient step on a network's weights."""

import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from gatprune_jax.evaluation.recalibration import TrainFunction
from gatprune_jax.evaluation.recipe import Recipe
from gatprune_jax.evaluation.scoring import score_logits
from gatprune_jax.health import Health, all_finite, healthy, take_if_finite


class Batch(NamedTuple):
  """What one gradient step learns from."""

  x: jax.Array  # images [B, ...], mixed already
  y: jax.Array  # labels [B]
  teacher_logits: jax.Array  # [B, classes]; not read where the recipe does not distil
  share: jax.Array | None = None  # of y in the target, the rest is y in reverse order; None: all


@flax.struct.dataclass
class TrainState:
  """What one gradient step carries to the next."""

  variables: Any
  average: Any  # of the variables; the variables themselves where the recipe does not average
  opt_state: Any
  health: Health


def init_train_state(optimizer: optax.GradientTransformation, variables: Any) -> TrainState:
  """The state before the first step; the average starts at the variables."""
  return TrainState(variables, variables, optimizer.init(variables["params"]), healthy())


def training_loss(recipe: Recipe, logits: jax.Array, batch: Batch) -> jax.Array:
  """(1 - w) CE(t, p_1) + w T^2 CE(q_T, p_T), mean over the batch.

  p_T and q_T are the softmax of student and teacher at temperature T; T^2 keeps the scale of the
  gradient (Hinton et al. 2015, arXiv 1503.02531).

  Args:
    recipe: w is `distillation`, T is `temperature`.
    logits: of the student `[B, classes]`.
    batch: its labels, smoothed as the recipe says and mixed in its share, are the targets t.
  """
  targets = optax.smooth_labels(jax.nn.one_hot(batch.y, logits.shape[-1]), recipe.label_smoothing)
  if batch.share is not None:  # on several devices, turning round is communication
    targets = batch.share * targets + (1 - batch.share) * targets[::-1]
  loss = optax.softmax_cross_entropy(logits, targets).mean()
  if recipe.distillation == 0:
    return loss
  temperature = recipe.temperature
  soft = jax.nn.softmax(batch.teacher_logits / temperature)
  imitation = optax.softmax_cross_entropy(logits / temperature, soft).mean()
  return (1 - recipe.distillation) * loss + recipe.distillation * temperature**2 * imitation


def train_step(
  train_fn: TrainFunction,
  optimizer: optax.GradientTransformation,
  recipe: Recipe,
  state: TrainState,
  batch: Batch,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One gradient step on one batch; pure and unbatched over candidates.

  Where the loss, its gradient or an updated variable is not finite, the state stays as it was, but
  for the count of such steps.

  Args:
    train_fn: `(variables, x) -> (logits, updated collections)`.
    optimizer: acts on the "params" collection.
    recipe: the loss.
    state: weights and optimiser state.
    batch: what to learn from.

  Returns:
    The next state, and scalars `loss` and `accuracy` of the batch.
  """

  def loss_fn(params):
    logits, updated = train_fn({**state.variables, "params": params}, batch.x)
    return training_loss(recipe, logits, batch), (logits, updated)

  params = state.variables["params"]
  (loss, (logits, updated)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
  updates, opt_state = optimizer.update(grads, state.opt_state, params)
  updates = jax.tree.map(lambda leaf: state.health.rate * leaf, updates)
  variables = {**state.variables, **updated, "params": optax.apply_updates(params, updates)}
  average = jax.tree.map(functools.partial(_averaged, recipe.average), state.average, variables)
  metrics = {"loss": loss, "accuracy": score_logits(logits, batch.y).correct.mean()}
  finite = all_finite((loss, grads, variables))
  new = TrainState(variables, average, opt_state, state.health)
  return take_if_finite(finite, new, state), metrics


def _averaged(d: float, old: jax.Array, new: jax.Array) -> jax.Array:
  """d old + (1 - d) new; of what is counted, the new value."""
  return d * old + (1 - d) * new if jnp.issubdtype(new.dtype, jnp.inexact) else new
