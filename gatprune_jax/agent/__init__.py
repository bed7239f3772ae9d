"""The agent: its observation, policy, rewards and learner; independent of how masks are scored."""

from gatprune_jax.agent.critic import (
  CriticConfig,
  Surrogate,
  counterfactual_advantages,
  fit_surrogate,
  utility_surrogate,
)
from gatprune_jax.agent.distributions import Distribution, bits, gaussian, sample
from gatprune_jax.agent.encoders import ENCODERS, Encoder, PolicyConfig
from gatprune_jax.agent.gat import graph_attention
from gatprune_jax.agent.jraph_gat import jraph_attention, to_graphs_tuple
from gatprune_jax.agent.lagrangian import (
  DualConfig,
  Multipliers,
  init_multipliers,
  set_units,
  update_multipliers,
  utility,
)
from gatprune_jax.agent.learner import (
  LEARNERS,
  Actor,
  Experience,
  Learner,
  LearnerState,
)
from gatprune_jax.agent.observation import Observation, dynamic_features, observe, rank_among_all
from gatprune_jax.agent.policy import (
  MAX_LOGIT,
  Policy,
  bounded,
  with_embedding,
)
from gatprune_jax.agent.ppo import (
  PPOConfig,
  clipped_objective,
  leave_one_out_advantages,
  policy_optimizer,
)
from gatprune_jax.agent.rewards import REWARDS, PastScores, compete, init_past, remember

__all__ = [
  "ENCODERS",
  "LEARNERS",
  "MAX_LOGIT",
  "REWARDS",
  "Actor",
  "CriticConfig",
  "Distribution",
  "DualConfig",
  "Encoder",
  "Experience",
  "Learner",
  "LearnerState",
  "Multipliers",
  "Observation",
  "PPOConfig",
  "PastScores",
  "Policy",
  "PolicyConfig",
  "Surrogate",
  "bits",
  "bounded",
  "clipped_objective",
  "compete",
  "counterfactual_advantages",
  "dynamic_features",
  "fit_surrogate",
  "gaussian",
  "graph_attention",
  "init_multipliers",
  "init_past",
  "jraph_attention",
  "leave_one_out_advantages",
  "observe",
  "policy_optimizer",
  "rank_among_all",
  "remember",
  "sample",
  "set_units",
  "to_graphs_tuple",
  "update_multipliers",
  "utility",
  "utility_surrogate",
  "with_embedding",
]
