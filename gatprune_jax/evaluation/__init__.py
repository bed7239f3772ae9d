"""How good a masked network is, before and after training it."""

from gatprune_jax.evaluation.adaptation import AdaptationConfig, Lesson, adapt, make_lesson
from gatprune_jax.evaluation.batching import images_at_once, largest_activation, masks_at_once
from gatprune_jax.evaluation.block_convolution import block_convolution
from gatprune_jax.evaluation.canonical_convolution import canonical_convolution
from gatprune_jax.evaluation.convolution import (
  candidate_convolution,
  candidate_width,
  scoring_convolution,
)
from gatprune_jax.evaluation.evaluator import Evaluator, check_calibration
from gatprune_jax.evaluation.matrix_convolution import matrix_convolution
from gatprune_jax.evaluation.merged_convolution import merged_convolution
from gatprune_jax.evaluation.recalibration import recalibrate, running_momentum
from gatprune_jax.evaluation.recipe import Recipe, make_optimizer, steps_per_epoch
from gatprune_jax.evaluation.scoring import (
  Score,
  Weights,
  candidate_scores,
  masked_outputs,
  mean_score,
  score_mask,
  score_outputs,
)
from gatprune_jax.evaluation.step import (
  Batch,
  TrainState,
  init_train_state,
  train_step,
  training_loss,
)
from gatprune_jax.evaluation.training import (
  align_candidates,
  aligned_network,
  train,
  train_candidates,
)

__all__ = [
  "AdaptationConfig",
  "Batch",
  "Evaluator",
  "Lesson",
  "Recipe",
  "Score",
  "TrainState",
  "Weights",
  "adapt",
  "align_candidates",
  "aligned_network",
  "block_convolution",
  "candidate_convolution",
  "candidate_scores",
  "candidate_width",
  "canonical_convolution",
  "check_calibration",
  "images_at_once",
  "init_train_state",
  "largest_activation",
  "make_lesson",
  "make_optimizer",
  "masked_outputs",
  "masks_at_once",
  "matrix_convolution",
  "mean_score",
  "merged_convolution",
  "recalibrate",
  "running_momentum",
  "score_mask",
  "score_outputs",
  "scoring_convolution",
  "steps_per_epoch",
  "train",
  "train_candidates",
  "train_step",
  "training_loss",
]
