"""Training of weights by gradient steps: one network, or many masked candidates side by side."""

from gatprune_jax.training.candidates import (
  align_candidates,
  aligned_network,
  train_candidates,
)
from gatprune_jax.training.one_network import train
from gatprune_jax.training.recipe import Recipe, make_optimizer, steps_per_epoch
from gatprune_jax.training.step import (
  Batch,
  TrainState,
  init_train_state,
  train_step,
  training_loss,
)

__all__ = [
  "Batch",
  "Recipe",
  "TrainState",
  "align_candidates",
  "aligned_network",
  "init_train_state",
  "make_optimizer",
  "steps_per_epoch",
  "train",
  "train_candidates",
  "train_step",
  "training_loss",
]
