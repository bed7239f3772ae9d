"""A search method added from outside: it allocates every budget in random channel orders."""

import numpy as np

from gatprune_jax.criteria import allocate
from gatprune_jax.search import SEARCHES, SearchResult, best_classical

NAME = "coins"


def coins(problem, scorer, evaluations, seed):
  rng = np.random.default_rng(seed)
  best_classical(problem, scorer)
  while (left := evaluations - len(scorer.known)) > 0:
    orders = [rng.permutation(problem.constraints.graph.num_channels) for _ in range(left)]
    scorer(np.stack([allocate(problem.constraints, order) for order in orders]))
  masks, scores = scorer.shortlist(scorer.best(scorer.config.elites))
  return SearchResult(masks, scores, len(scorer.known), 0.0, None)


def add(setitem):
  setitem(SEARCHES, NAME, coins)
