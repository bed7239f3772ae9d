"""How good a masked network is, before and after training it."""

from gatprune_jax.evaluation.adaptation import AdaptationConfig, Lesson, adapt, make_lesson
from gatprune_jax.evaluation.batching import (
  equal_blocks,
  first_in_chunks,
  images_at_once,
  in_blocks,
  in_chunks,
  largest_activation,
  masks_at_once,
)
from gatprune_jax.evaluation.block_convolution import block_convolution
from gatprune_jax.evaluation.canonical_convolution import canonical_convolution
from gatprune_jax.evaluation.convolution import (
  candidate_convolution,
  candidate_width,
  scoring_convolution,
)
from gatprune_jax.evaluation.matrix_convolution import matrix_convolution
from gatprune_jax.evaluation.merged_convolution import merged_convolution
from gatprune_jax.evaluation.recalibration import TrainFunction, recalibrate, running_momentum
from gatprune_jax.evaluation.recipe import Recipe, make_optimizer, steps_per_epoch
from gatprune_jax.evaluation.scoring import (
  Score,
  candidate_accuracies,
  masked_logits,
  recalibrate_mask,
  score_logits,
  score_mask,
)
from gatprune_jax.evaluation.step import (
  Batch,
  TrainState,
  init_train_state,
  train_step,
  training_loss,
)
from gatprune_jax.evaluation.training import align_candidates, train, train_candidates

__all__ = [
  "AdaptationConfig",
  "Batch",
  "Lesson",
  "Recipe",
  "Score",
  "TrainFunction",
  "TrainState",
  "adapt",
  "align_candidates",
  "block_convolution",
  "candidate_accuracies",
  "candidate_convolution",
  "candidate_width",
  "canonical_convolution",
  "equal_blocks",
  "first_in_chunks",
  "images_at_once",
  "in_blocks",
  "in_chunks",
  "init_train_state",
  "largest_activation",
  "make_lesson",
  "make_optimizer",
  "masked_logits",
  "masks_at_once",
  "matrix_convolution",
  "merged_convolution",
  "recalibrate",
  "recalibrate_mask",
  "running_momentum",
  "score_logits",
  "score_mask",
  "scoring_convolution",
  "steps_per_epoch",
  "train",
  "train_candidates",
  "train_step",
  "training_loss",
]
