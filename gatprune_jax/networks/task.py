"""What a network is for: its loss and its score, example by example."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gatprune_jax.errors import InputError, first_line

# (outputs, targets) -> one number an example, float32 [n]
PerExample = Callable[[Any, Any], jax.Array]


def squared_difference(outputs: Any, teacher_outputs: Any, temperature: float) -> jax.Array:
  """Mean squared difference of the outputs, summed over their arrays, `[n]`.

  It imitates a teacher of any kind (Ba and Caruana 2014, arXiv 1312.6184, on logits).

  Args:
    outputs: any tree of arrays `[n, ...]`; those that are no floating-point numbers do not count.
    teacher_outputs: of the same tree.
    temperature: not used.
  """
  pairs = zip(jax.tree.leaves(outputs), jax.tree.leaves(teacher_outputs), strict=True)
  return sum(
    jnp.square(own - other).reshape(len(own), -1).mean(1)
    for own, other in pairs
    if jnp.issubdtype(own.dtype, jnp.inexact)
  )


@dataclasses.dataclass(frozen=True)
class Task:
  """What a network is for.

  Attributes:
    loss: `loss(outputs, targets) -> [n]`, what gradient steps make small, of each example.
    score: `score(outputs, targets) -> [n]`, what a network is judged by, of each example; higher is
      better, and examples count alike.
    metric: what tables call the mean score. Those of "accuracy" are in percent.
    imitation: `imitation(outputs, teacher_outputs, temperature) -> [n]`, how far the outputs are
      from a teacher's, for distillation.
    smoothed_loss: `smoothed_loss(outputs, targets, share) -> [n]`, the loss with label smoothing;
      None where the task knows none.
  """

  loss: PerExample
  score: PerExample
  metric: str = "score"
  imitation: Callable[[Any, Any, float], jax.Array] = squared_difference
  smoothed_loss: Callable[[Any, Any, float], jax.Array] | None = None

  def training_loss(self, label_smoothing: float) -> PerExample:
    """The loss that gradient steps make small.

    Raises:
      InputError: where labels are to be smoothed and the task does not know how.
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
  """Cross-entropy with a share of each label spread evenly over the classes, nats, `[n]`."""
  targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), share)
  return optax.softmax_cross_entropy(logits, targets)


def is_correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """1 where the largest logit is the label's, else 0, `[n]`; of logits not all finite, 0."""
  correct = (logits.argmax(-1) == labels) & jnp.isfinite(logits).all(-1)
  return correct.astype(jnp.float32)


def softened_cross_entropy(
  logits: jax.Array, teacher_logits: jax.Array, temperature: float
) -> jax.Array:
  """T^2 CE(q_T, p_T), nats, `[n]`.

  p_T and q_T are the softmax of student and teacher at temperature T; T^2 keeps the scale of the
  gradient (Hinton et al. 2015, arXiv 1503.02531).
  """
  soft = jax.nn.softmax(teacher_logits / temperature)
  return temperature**2 * optax.softmax_cross_entropy(logits / temperature, soft)


# Logits [n, classes] and integer labels [n].
CLASSIFICATION = Task(
  cross_entropy, is_correct, "accuracy", softened_cross_entropy, smoothed_cross_entropy
)


def check_task(task: Task, outputs: Any, targets: Any) -> None:
  """Tries a task on a dense network's outputs.

  Args:
    task: of the network.
    outputs: of a batch.
    targets: of the same batch.

  Raises:
    InputError: where the loss or the score fails, is not one number an example, or is not finite,
      or a label is none of the classes.
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
