"""The constrained MDP, the search that trains an agent in it, and baseline searches."""

from gatprune_jax.search.agent_search import Progress, search
from gatprune_jax.search.baselines.competitors import SEARCHES
from gatprune_jax.search.baselines.equal_budget import (
  STRATEGIES,
  Scored,
  Terms,
  search_equal_budget,
  search_without_learning,
)
from gatprune_jax.search.mdp import SCHEDULES, make_decisions, make_environment
from gatprune_jax.search.problem import (
  DEFAULT_CRITERIA,
  PruningProblem,
  check_search,
  hold_out_confirmation,
  make_problem,
)
from gatprune_jax.search.scorer import (
  PASSES_OF_STEP,
  Scorer,
  SearchResult,
  best_classical,
  passes_of_score,
)
from gatprune_jax.search.search_config import SearchConfig
from gatprune_jax.search.warm_start import warm_logits

__all__ = [
  "DEFAULT_CRITERIA",
  "PASSES_OF_STEP",
  "SCHEDULES",
  "SEARCHES",
  "STRATEGIES",
  "Progress",
  "PruningProblem",
  "Scored",
  "Scorer",
  "SearchConfig",
  "SearchResult",
  "Terms",
  "best_classical",
  "check_search",
  "hold_out_confirmation",
  "make_decisions",
  "make_environment",
  "make_problem",
  "passes_of_score",
  "search",
  "search_equal_budget",
  "search_without_learning",
  "warm_logits",
]
