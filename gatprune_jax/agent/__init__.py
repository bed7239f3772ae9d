"""The learner's parts. They know channels and criteria, nothing of how a mask is scored."""

from gatprune_jax.agent.features import (
  Block,
  Observation,
  dynamic_features,
  observe,
  rank_among_all,
)
from gatprune_jax.agent.gat import attend_blocks, attend_edges, to_graphs_tuple
from gatprune_jax.agent.lagrangian import (
  DualConfig,
  Multipliers,
  init_multipliers,
  update_multipliers,
  utility,
)
from gatprune_jax.agent.policy import (
  Policy,
  PolicyConfig,
  entropy,
  kl_divergence,
  log_prob,
  sample,
  with_embedding,
)
from gatprune_jax.agent.ppo import PPOConfig, clipped_objective, leave_one_out_advantages
from gatprune_jax.agent.self_competition import MODES, PastScores, compete, init_past, remember

__all__ = [
  "MODES",
  "Block",
  "DualConfig",
  "Multipliers",
  "Observation",
  "PPOConfig",
  "PastScores",
  "Policy",
  "PolicyConfig",
  "attend_blocks",
  "attend_edges",
  "clipped_objective",
  "compete",
  "dynamic_features",
  "entropy",
  "init_multipliers",
  "init_past",
  "kl_divergence",
  "leave_one_out_advantages",
  "log_prob",
  "observe",
  "rank_among_all",
  "remember",
  "sample",
  "to_graphs_tuple",
  "update_multipliers",
  "utility",
  "with_embedding",
]
