"""The constrained MDP, the loop that ties evaluation and agent together, and its competitors."""

from gatprune_jax.search.config import SearchConfig
from gatprune_jax.search.equal_budget import STRATEGIES, Scored, Terms, search_without_learning
from gatprune_jax.search.loop import (
  Progress,
  SearchResult,
  Task,
  hold_out_arena,
  search,
  search_equal_budget,
)
from gatprune_jax.search.mdp import SCHEDULES, make_decisions

__all__ = [
  "SCHEDULES",
  "STRATEGIES",
  "Progress",
  "Scored",
  "SearchConfig",
  "SearchResult",
  "Task",
  "Terms",
  "hold_out_arena",
  "make_decisions",
  "search",
  "search_equal_budget",
  "search_without_learning",
]
