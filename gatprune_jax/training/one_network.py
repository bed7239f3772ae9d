"""Trains one network."""

import functools
from typing import Any

import jax

from gatprune_jax.data import Split
from gatprune_jax.networks import Network, Task
from gatprune_jax.runs.checkpointer import Checkpointer, NullCheckpointer
from gatprune_jax.training.epochs import OnEpoch, Teacher, Training
from gatprune_jax.training.placement import Placement
from gatprune_jax.training.recipe import Recipe
from gatprune_jax.training.step import train_step


def train(
  network: Network,
  task: Task,
  split: Split,
  recipe: Recipe,
  key: jax.Array,
  on_epoch: OnEpoch = lambda epoch, metrics, variables: None,
  teacher: Teacher | None = None,
  checkpointer: Checkpointer | None = None,
) -> Any:
  """Trains one network from its variables; returns the new ones.

  Every device works on its share of each batch, and statistics are those of the whole batch.

  Args:
    network: what to train.
    task: its loss, and the score that is told.
    split: training examples.
    recipe: how.
    key: PRNG key of data order and augmentation.
    on_epoch: called after each epoch; again after the last one whose steps a checkpointer holds.
    teacher: what to imitate where the recipe distils.
    checkpointer: where the state is saved after gradient steps, and was saved; None saves nothing.

  Raises:
    InputError: where the split is smaller than one batch, or the recipe distils from no teacher.
    Diverged: where steps are not finite, again and again.
    Preempted: where the checkpointer was asked to stop.
  """
  step = lambda optimizer: functools.partial(train_step, network, task, optimizer, recipe)
  one = lambda init: init
  training = Training(network, task, split, recipe, key, on_epoch, teacher, Placement(None))
  return training.run(step, one, network.variables, checkpointer or NullCheckpointer())
