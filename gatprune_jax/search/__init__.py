"""The constrained MDP, and the loop that ties evaluation and agent together."""

from gatprune_jax.search.config import SearchConfig
from gatprune_jax.search.loop import Progress, SearchResult, hold_out_arena, search
from gatprune_jax.search.mdp import SCHEDULES, make_decisions

__all__ = [
  "SCHEDULES",
  "Progress",
  "SearchConfig",
  "SearchResult",
  "hold_out_arena",
  "make_decisions",
  "search",
]
