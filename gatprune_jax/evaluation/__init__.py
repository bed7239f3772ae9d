"""Evaluation of a network under a mask, before any fine-tuning."""

from gatprune_jax.evaluation.adaptation import (
  AdaptationBatches,
  AdaptationConfig,
  adapt,
  adaptation_batches,
)
from gatprune_jax.evaluation.batching import images_at_once, largest_activation, masks_at_once
from gatprune_jax.evaluation.evaluator import Evaluator, Examples, check_calibration
from gatprune_jax.evaluation.recalibration import (
  Momentum,
  recalibrate,
  running_momentum,
  with_statistics,
)
from gatprune_jax.evaluation.scoring import (
  Score,
  Weights,
  candidate_scores,
  candidate_statistics,
  compensated_weights,
  masked_outputs,
  mean_score,
  score_mask,
  score_outputs,
)

__all__ = [
  "AdaptationBatches",
  "AdaptationConfig",
  "Evaluator",
  "Examples",
  "Momentum",
  "Score",
  "Weights",
  "adapt",
  "adaptation_batches",
  "candidate_scores",
  "candidate_statistics",
  "check_calibration",
  "compensated_weights",
  "images_at_once",
  "largest_activation",
  "masked_outputs",
  "masks_at_once",
  "mean_score",
  "recalibrate",
  "running_momentum",
  "score_mask",
  "score_outputs",
  "with_statistics",
]
