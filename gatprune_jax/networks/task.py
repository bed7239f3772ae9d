"""Tasks: the loss that trains a network and the score that judges it, for each example.

`CLASSIFICATION` is the task of networks that return logits; any other task is a `Task` of the
caller's own functions.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gatprune_jax.errors import InputError, first_line

# (outputs, targets) -> one number for each example, float32 [n]
PerExample = Callable[[Any, Any], jax.Array]


def squared_difference(outputs: Any, teacher_outputs: Any, temperature: float) -> jax.Array:
  """Computes the mean squared difference of each output array, summed over the arrays, `[n]`.

  This loss makes a student imitate a teacher with outputs of any kind (Ba and Caruana 2014,
  arXiv 1312.6184, use it on logits).

  Args:
    outputs: any tree of arrays `[n, ...]`; only arrays of floating-point numbers are compared.
    teacher_outputs: the teacher's outputs, a tree of the same structure.
    temperature: not used; it is there because `Task.imitation` takes it.
  """
  pairs = zip(jax.tree.leaves(outputs), jax.tree.leaves(teacher_outputs), strict=True)
  return sum(
    jnp.square(own - other).reshape(len(own), -1).mean(1)
    for own, other in pairs
    if jnp.issubdtype(own.dtype, jnp.inexact)
  )


@dataclasses.dataclass(frozen=True)
class Task:
  """The loss and the score of a network.

  Attributes:
    loss: `loss(outputs, targets) -> [n]`, the loss of each example, which gradient steps minimise.
    score: `score(outputs, targets) -> [n]`, the score of each example, by which networks are
      judged; higher is better, and every example has the same weight.
    metric: the name of the mean score in tables, which show a metric named "accuracy" in percent.
    imitation: `imitation(outputs, teacher_outputs, temperature) -> [n]`, a loss that is small where
      the outputs are close to a teacher's outputs, for distillation.
    smoothed_loss: `smoothed_loss(outputs, targets, share) -> [n]`, the loss with label smoothing;
      None if the task does not define it.
  """

  loss: PerExample
  score: PerExample
  metric: str = "score"
  imitation: Callable[[Any, Any, float], jax.Array] = squared_difference
  smoothed_loss: Callable[[Any, Any, float], jax.Array] | None = None

  def training_loss(self, label_smoothing: float) -> PerExample:
    """Returns the loss that gradient steps minimise, with this share of label smoothing.

    Raises:
      InputError: if the share is not 0 and the task has no `smoothed_loss`.
    """
    if label_smoothing == 0:
      return self.loss
    if self.smoothed_loss is None:
      raise InputError(
        f"label_smoothing is {label_smoothing}, but the task has no smoothed_loss: set it to 0"
      )
    smoothed = self.smoothed_loss
    return lambda outputs, targets: smoothed(outputs, targets, label_smoothing)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """-log p(label) of logits `[n, classes]` and labels `[n]`, nats, `[n]`."""
  log_p = jax.nn.log_softmax(logits)
  is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
  return -jnp.where(is_label, log_p, 0.0).sum(-1)


def smoothed_cross_entropy(logits: jax.Array, labels: jax.Array, share: float) -> jax.Array:
  """Computes the cross-entropy with a share of each label spread over all classes, nats, `[n]`.

  This is label smoothing (Szegedy et al. 2016, arXiv 1512.00567).

  Args:
    logits: `[n, classes]`.
    labels: integers `[n]`.
    share: share of each label that is spread evenly over the classes, in [0, 1).
  """
  targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), share)
  return optax.softmax_cross_entropy(logits, targets)


def is_correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns 1 where the largest logit is the label's and all logits are finite, else 0, `[n]`."""
  correct = (logits.argmax(-1) == labels) & jnp.isfinite(logits).all(-1)
  return correct.astype(jnp.float32)


def softened_cross_entropy(
  logits: jax.Array, teacher_logits: jax.Array, temperature: float
) -> jax.Array:
  """T^2 CE(q_T, p_T), nats, `[n]`.

  p_T and q_T are the softmax of student and teacher at temperature T. The factor T^2 keeps the
  scale of the gradient independent of T (Hinton et al. 2015, arXiv 1503.02531).

  Args:
    logits: the student's logits `[n, classes]`.
    teacher_logits: `[n, classes]`.
    temperature: T, positive.
  """
  soft = jax.nn.softmax(teacher_logits / temperature)
  return temperature**2 * optax.softmax_cross_entropy(logits / temperature, soft)


# Outputs are logits [n, classes] and targets are integer labels [n].
CLASSIFICATION = Task(
  cross_entropy, is_correct, "accuracy", softened_cross_entropy, smoothed_cross_entropy
)


def check_task(task: Task, outputs: Any, targets: Any) -> None:
  """Checks that a task's loss and score work on the outputs of a dense network.

  Args:
    task: the network's task.
    outputs: the network's outputs for a batch, any tree of arrays `[n, ...]`.
    targets: the targets of the same batch, any tree of arrays `[n, ...]`.

  Raises:
    InputError: if the loss or the score fails, is not one number for each example, or is not
      finite, or if a label of a classification is outside the range of the classes.
  """
  if task.loss is cross_entropy:
    _check_labels(outputs, targets)
  num = len(jax.tree.leaves(targets)[0])
  for name, fn in (("loss", task.loss), ("score", task.score)):
    try:
      values = fn(outputs, targets)
    except Exception as error:
      raise InputError(
        f"the task's {name}(outputs, targets) fails with {type(error).__name__}: "
        f"{first_line(error)}"
      ) from error
    if jnp.shape(values) != (num,):
      raise InputError(
        f"the task's {name} has shape {jnp.shape(values)} for {num} examples: it must be one "
        f"number for each, ({num},), not their mean"
      )
    if not jnp.issubdtype(values.dtype, jnp.floating):
      raise InputError(
        f"the task's {name} holds {values.dtype} values: give floating-point numbers, by "
        ".astype(float) perhaps"
      )
    if (bad := int((~jnp.isfinite(values)).sum())) > 0:
      raise InputError(
        f"the task's {name} of the dense network is NaN or infinite on {bad} of {num} examples: "
        "look at the targets, and at the network's outputs on them"
      )


def _check_labels(outputs: Any, targets: Any) -> None:
  if getattr(outputs, "ndim", None) != 2:
    shapes = jax.tree.map(jnp.shape, outputs)
    raise InputError(
      f"the network's outputs have shape {shapes}: classification needs logits [n, classes]; for "
      "anything else give task=Task(loss=..., score=...)"
    )
  classes = outputs.shape[-1]
  is_vector = getattr(targets, "ndim", None) == 1
  if not (is_vector and jnp.issubdtype(targets.dtype, jnp.integer)):
    described = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", targets)
    raise InputError(
      f"y is {described}: classification needs one integer label for each example; for anything "
      "else give task=Task(loss=..., score=...)"
    )
  for label in (int(targets.min()), int(targets.max())):
    if not 0 <= label < classes:
      raise InputError(
        f"y has label {label}, which is out of range: the network's {classes} logits stand for "
        f"labels 0 to {classes - 1}"
      )
