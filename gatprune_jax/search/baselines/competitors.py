"""Table of the baseline searches, each of which may spend what the agent did."""

from collections.abc import Callable
import functools

from gatprune_jax.search.baselines.equal_budget import STRATEGIES, search_equal_budget
from gatprune_jax.search.baselines.ratio_agent import search_ratios
from gatprune_jax.search.problem import PruningProblem
from gatprune_jax.search.scorer import Scorer, SearchResult

# (problem, scorer without known masks, evaluations, seed) -> result
SEARCHES: dict[str, Callable[[PruningProblem, Scorer, int, int], SearchResult]] = {
  **{name: functools.partial(search_equal_budget, name) for name in STRATEGIES},
  "ratio_agent": search_ratios,
}
