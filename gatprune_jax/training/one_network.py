"""Trains a single network, with every batch shared out over the devices."""

import functools
from typing import Any

import jax

from gatprune_jax.data import Split
from gatprune_jax.networks import Network, Task, fast_network
from gatprune_jax.runs.checkpointer import Checkpointer, NullCheckpointer
from gatprune_jax.training.epochs import OnEpoch, Training
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
  teacher: Network | None = None,
  checkpointer: Checkpointer | None = None,
) -> Any:
  """Trains one network, starting from its variables; returns the trained variables.

  Every device works on its share of each batch. Batch statistics are those of the whole batch.

  Args:
    network: the network to train.
    task: gives the loss, and the score that is logged.
    split: training examples.
    recipe: how the network is trained.
    key: PRNG key of data order and augmentation.
    on_epoch: called after each epoch with the epoch, counted from 1, its mean loss and score, and
      the variables. Where training goes on from a checkpoint that was saved at the end of an epoch,
      it is called for that epoch again.
    teacher: the network whose outputs are imitated where the recipe distils; it is not trained.
    checkpointer: saves the state after gradient steps, and restores the state that an earlier
      process saved. None saves nothing.

  Raises:
    InputError: where the split is smaller than one batch, or the recipe distils and no teacher is
      given.
    Diverged: where steps keep giving NaN or infinity after roll-backs.
    Preempted: where the process was asked to stop; the state is saved.
  """
  network, teacher = fast_network(network), teacher and fast_network(teacher)
  step = lambda optimizer: functools.partial(train_step, network, task, optimizer, recipe)
  one = lambda init: init
  training = Training(network, task, split, recipe, key, on_epoch, teacher, Placement(None))
  return training.run(step, one, network.variables, checkpointer or NullCheckpointer())
