"""The learner's parts. They know channels and criteria, nothing of how a mask is scored."""

from gatprune_jax.agent.critic import (
  CriticConfig,
  Surrogate,
  counterfactual_advantages,
  fit_surrogate,
)
from gatprune_jax.agent.gat import attend_blocks, attend_edges, to_graphs_tuple
from gatprune_jax.agent.lagrangian import (
  DualConfig,
  Multipliers,
  init_multipliers,
  update_multipliers,
  utility,
)
from gatprune_jax.agent.observation import Observation, dynamic_features, observe, rank_among_all
from gatprune_jax.agent.policy import (
  MAX_LOGIT,
  Policy,
  PolicyConfig,
  bounded,
  entropy,
  kl_divergence,
  log_prob,
  sample,
  with_embedding,
)
from gatprune_jax.agent.ppo import (
  PPOConfig,
  clipped_objective,
  leave_one_out_advantages,
  make_optimizer,
)
from gatprune_jax.agent.rewards import MODES, PastScores, compete, init_past, remember

__all__ = [
  "MAX_LOGIT",
  "MODES",
  "CriticConfig",
  "DualConfig",
  "Multipliers",
  "Observation",
  "PPOConfig",
  "PastScores",
  "Policy",
  "PolicyConfig",
  "Surrogate",
  "attend_blocks",
  "attend_edges",
  "bounded",
  "clipped_objective",
  "compete",
  "counterfactual_advantages",
  "dynamic_features",
  "entropy",
  "fit_surrogate",
  "init_multipliers",
  "init_past",
  "kl_divergence",
  "leave_one_out_advantages",
  "log_prob",
  "make_optimizer",
  "observe",
  "rank_among_all",
  "remember",
  "sample",
  "to_graphs_tuple",
  "update_multipliers",
  "utility",
  "with_embedding",
]
