"""The constrained MDP, the loop that ties evaluation and agent together, and its competitors."""

from gatprune_jax.search.competitors import SEARCHES
from gatprune_jax.search.config import SearchConfig
from gatprune_jax.search.equal_budget import (
  STRATEGIES,
  Scored,
  Terms,
  search_equal_budget,
  search_without_learning,
)
from gatprune_jax.search.loop import Progress, search
from gatprune_jax.search.mdp import SCHEDULES, make_decisions
from gatprune_jax.search.scoring import Scorer, SearchResult, Task, best_classical, hold_out_arena
from gatprune_jax.search.warm_start import warm_logits

__all__ = [
  "SCHEDULES",
  "SEARCHES",
  "STRATEGIES",
  "Progress",
  "Scored",
  "Scorer",
  "SearchConfig",
  "SearchResult",
  "Task",
  "Terms",
  "best_classical",
  "hold_out_arena",
  "make_decisions",
  "search",
  "search_equal_budget",
  "search_without_learning",
  "warm_logits",
]
