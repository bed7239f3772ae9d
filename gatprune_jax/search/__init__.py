"""The constrained MDP, the loop that ties evaluation and agent together, and its competitors."""

from gatprune_jax.search.config import SearchConfig
from gatprune_jax.search.equal_budget import STRATEGIES, Scored, Terms, search_without_learning
from gatprune_jax.search.loop import Progress, SearchResult, hold_out_arena, search
from gatprune_jax.search.mdp import SCHEDULES, make_decisions

__all__ = [
  "SCHEDULES",
  "STRATEGIES",
  "Progress",
  "Scored",
  "SearchConfig",
  "SearchResult",
  "Terms",
  "hold_out_arena",
  "make_decisions",
  "search",
  "search_without_learning",
]
