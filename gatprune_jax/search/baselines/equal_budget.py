"""Searches without a learner, to be given as many scored masks as the agent.

Each keeps a *genome* per mask. A genome proposes the order in which channels are kept; `allocate`
brings the order to the budgets, so that every mask is feasible and maximal, as for the classical
pruners. Ratios are scaled to the budget by the same step: the prefix of the order that fits keeps
the first `t * ratio` of each group, for the largest t.
"""

from collections.abc import Callable, Collection
import time
from typing import NamedTuple

import numpy as np

from gatprune_jax.channels import Constraints, ranks
from gatprune_jax.criteria import Classical, allocate, order_by_ratios
from gatprune_jax.errors import InputError
from gatprune_jax.search.config import SearchConfig
from gatprune_jax.search.problem import PruningProblem
from gatprune_jax.search.scorer import Scorer, SearchResult, best_classical

_DRAWS = 1000  # for one new mask

Genome = np.ndarray  # bits, bool [N], or ratios [groups]
ScoreMasks = Callable[[np.ndarray], np.ndarray]  # masks [B, N] -> scores [B], higher is better


class Terms(NamedTuple):
  """What every search starts from."""

  constraints: Constraints
  best: Classical  # the best classical pruner: its order ranks channels, its mask starts the bits
  score: float  # of its mask


class Strategy(NamedTuple):
  """One way to search; see the functions below."""

  parents: Callable[[Terms], list[Genome]]  # before anything is scored, each of the best mask
  # Of a parent's genome; None where there are no parents yet.
  child: Callable[[np.random.Generator, Terms, Genome | None], Genome]
  order: Callable[[np.random.Generator, Terms, Genome], np.ndarray]  # -> [N], 0 is kept first


class Scored(NamedTuple):
  """Every mask that a search scored, best first."""

  masks: np.ndarray  # [M, N] bool
  scores: np.ndarray  # [M]


def _no_parents(terms: Terms) -> list[Genome]:
  """The best classical mask has no ratios."""
  return []


def _best_classical_bits(terms: Terms) -> list[Genome]:
  """The best classical mask."""
  return [terms.best.mask]


def _draw_ratios(rng: np.random.Generator, terms: Terms, parent: Genome | None) -> Genome:
  """A keep ratio for each group, log-uniform in [0.1, 1]: only their proportions matter."""
  return 0.1 ** rng.random(len(terms.constraints.graph.groups))


def _change_ratios(rng: np.random.Generator, terms: Terms, ratios: Genome | None) -> Genome:
  """Every ratio times a log-normal factor, a third of the groups at a time on average."""
  if ratios is None:
    return _draw_ratios(rng, terms, None)
  chosen = rng.random(len(ratios)) < 1 / 3
  return ratios * np.exp(0.5 * chosen * rng.standard_normal(len(ratios)))


def _order_of_ratios(rng: np.random.Generator, terms: Terms, ratios: Genome) -> np.ndarray:
  """The ratios of each group, filled in the best classical order."""
  return order_by_ratios(terms.constraints.graph, terms.best.order, ratios)


def _change_bits(rng: np.random.Generator, terms: Terms, mask: Genome) -> Genome:
  """As many kept channels leave as removed ones enter: one pair, and more with probability 1/2."""
  kept, removed = np.flatnonzero(mask), np.flatnonzero(~mask)
  pairs = min(rng.geometric(0.5), len(kept), len(removed))
  child = mask.copy()
  child[rng.choice(kept, pairs, replace=False)] = False
  child[rng.choice(removed, pairs, replace=False)] = True
  return child


def _order_of_bits(rng: np.random.Generator, terms: Terms, mask: Genome) -> np.ndarray:
  """Kept channels first, both halves in random order: what leaves or fills up is drawn."""
  return ranks(mask + rng.random(len(mask)))


STRATEGIES: dict[str, Strategy] = {
  # Independent draws of ratios per group.
  "random_ratios": Strategy(_no_parents, _draw_ratios, _order_of_ratios),
  # Evolution of ratios per group.
  "evolve_ratios": Strategy(_no_parents, _change_ratios, _order_of_ratios),
  # Evolution of the bits themselves, from the best classical mask.
  "evolve_bits": Strategy(_best_classical_bits, _change_bits, _order_of_bits),
}


def search_without_learning(
  strategy: str,
  terms: Terms,
  score: ScoreMasks,
  num_masks: int,
  generation: int,
  parents: int,
  seed: int,
  known: Collection[bytes] = (),
) -> Scored:
  """Scores `num_masks` distinct masks, a generation at a time.

  The children of each generation have parents drawn from the best masks of all before it. A
  mask that was scored before, or that is the best classical one, is drawn again; where a thousand
  draws give no new one, there are hardly more within reach, and the search ends.

  Args:
    strategy: a key of `STRATEGIES`.
    terms: the network's constraints, and the best classical pruner.
    score: called with `[generation, N]` masks each time, the last time with what is left.
    num_masks: how many to score.
    generation: masks scored together.
    parents: of how many of the best masks children are made.
    seed: of everything random.
    known: bytes of further masks that were scored before.

  Raises:
    InputError: an unknown strategy.
  """
  if strategy not in STRATEGIES:
    raise InputError(f"search {strategy!r} is unknown: choose from {', '.join(STRATEGIES)}")
  first_parents, child, order = STRATEGIES[strategy]
  rng = np.random.default_rng(seed)
  seen = {terms.best.mask.tobytes(), *known}
  genomes = first_parents(terms)
  num_given = len(genomes)
  masks, scores = num_given * [terms.best.mask], num_given * [terms.score]

  def draw(best: list[int]) -> tuple[Genome, np.ndarray] | None:
    for _ in range(_DRAWS):
      genome = child(rng, terms, genomes[rng.choice(best)] if best else None)
      mask = allocate(terms.constraints, order(rng, terms, genome))
      if mask.tobytes() not in seen:
        seen.add(mask.tobytes())
        # Bits are inherited as they were repaired, ratios as they were drawn.
        return (mask if genome.dtype == bool else genome), mask
    return None

  while (left := num_given + num_masks - len(masks)) > 0:
    best = np.argsort(-np.array(scores), kind="stable")[:parents].tolist()
    drawn = []
    while len(drawn) < min(generation, left) and (pair := draw(best)) is not None:
      drawn.append(pair)
    if not drawn:
      break
    new = [mask for _, mask in drawn]
    scores += np.asarray(score(np.stack(new))).tolist()
    genomes += [genome for genome, _ in drawn]
    masks += new
  found = np.array(masks[num_given:], bool).reshape(-1, terms.constraints.graph.num_channels)
  scores = np.array(scores[num_given:])
  ranking = np.argsort(-scores, kind="stable")
  return Scored(found[ranking], scores[ranking])


def search_equal_budget(
  strategy: str, problem: PruningProblem, config: SearchConfig, evaluations: int, seed: int
) -> SearchResult:
  """Searches without a learner, scoring as many masks as an agent did.

  It scores fewer where there are no more within its reach. The classical masks count too.
  Generations have the agent's number of samples, and a quarter as many parents.

  Args:
    strategy: see `STRATEGIES`.
    problem: what to prune.
    config: the agent's settings.
    evaluations: the agent's `SearchResult.evaluations`.
    seed: of everything random.

  Raises:
    InputError: an unknown strategy, or fewer evaluations than there are classical masks.
  """
  start = time.monotonic()
  scorer = Scorer(problem, config)
  best = best_classical(problem, scorer)
  score = float(scorer(best.mask[None])[0][0])
  terms = Terms(problem.constraints, best, score)
  if (num_masks := evaluations - len(scorer.known)) < 0:
    raise InputError(
      f"{evaluations} evaluations are too few: every search scores the {len(scorer.known)} "
      "classical masks first, so give at least as many"
    )
  search_without_learning(
    strategy, terms, lambda masks: scorer(masks)[0], num_masks, config.samples,
    max(1, config.samples // 4), seed, scorer.known,
  )  # fmt: skip
  masks, scores = scorer.shortlist(scorer.best(config.elites))
  return SearchResult(masks, scores, len(scorer.known), time.monotonic() - start, None)
