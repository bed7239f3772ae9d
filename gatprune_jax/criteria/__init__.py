"""Classical pruning criteria: the agent's baselines, and some of its features."""

from gatprune_jax.criteria.allocation import SCOPES, allocate
from gatprune_jax.criteria.scores import (
  CRITERIA,
  Evidence,
  check_criteria,
  mean_by_channel,
  score_channels,
  vector_statistics,
)

__all__ = [
  "CRITERIA",
  "SCOPES",
  "Evidence",
  "allocate",
  "check_criteria",
  "mean_by_channel",
  "score_channels",
  "vector_statistics",
]
