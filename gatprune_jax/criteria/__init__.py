"""Classical pruning criteria, used as baselines of the agent and as some of its input features."""

from gatprune_jax.criteria.allocation import (
  SCOPES,
  Classical,
  allocate,
  channel_order,
  classical_pruners,
  order_by_ratios,
)
from gatprune_jax.criteria.saliency import (
  CRITERIA,
  Evidence,
  check_criteria,
  check_saliency,
  mean_by_channel,
  score_channels,
  vector_statistics,
)

__all__ = [
  "CRITERIA",
  "SCOPES",
  "Classical",
  "Evidence",
  "allocate",
  "channel_order",
  "check_criteria",
  "check_saliency",
  "classical_pruners",
  "mean_by_channel",
  "order_by_ratios",
  "score_channels",
  "vector_statistics",
]
