"""Random and evolutionary searches without a learner, at the agent's number of scored masks.

Each search keeps a *genome* per mask: either the mask's bits, or a keep ratio per group. A genome
gives the order in which channels are kept, and `allocate` keeps as many channels of the order as
fit the budgets. Therefore every mask is feasible and maximal, as for the classical pruners. The
same step scales ratios to the budgets: the longest prefix of the order that fits keeps the first
`t * ratio` of each group, for the largest possible t.
"""

from collections.abc import Callable, Collection
import time
from typing import NamedTuple

import numpy as np

from gatprune_jax.channels import Constraints, ranks
from gatprune_jax.criteria import Classical, allocate, order_by_ratios
from gatprune_jax.errors import InputError
from gatprune_jax.search.problem import PruningProblem
from gatprune_jax.search.scorer import Scorer, SearchResult, best_classical

_DRAWS = 1000  # attempts at drawing one new mask

Genome = np.ndarray  # bits, bool [N], or ratios [groups]
ScoreMasks = Callable[[np.ndarray], np.ndarray]  # masks [B, N] -> scores [B], higher is better


class Terms(NamedTuple):
  """Inputs that all of these searches share."""

  constraints: Constraints
  best: Classical  # best classical pruner; its order ranks channels, its mask starts "evolve_bits"
  score: float  # score of the best classical pruner's mask


class Strategy(NamedTuple):
  """One way to search, given by three of the functions below."""

  # Returns the genomes to start from; the mask of each is the best classical mask.
  parents: Callable[[Terms], list[Genome]]
  # Returns a new genome, made from the genome of a parent; None if there is no parent yet.
  child: Callable[[np.random.Generator, Terms, Genome | None], Genome]
  # Returns the order [N] in which a genome keeps channels, 0 first.
  order: Callable[[np.random.Generator, Terms, Genome], np.ndarray]


class Scored(NamedTuple):
  """All masks that a search scored, best first."""

  masks: np.ndarray  # [M, N] bool
  scores: np.ndarray  # [M]


def _no_parents(terms: Terms) -> list[Genome]:
  """Returns no genomes, because the best classical mask is not given by ratios."""
  return []


def _best_classical_bits(terms: Terms) -> list[Genome]:
  """Returns the bits of the best classical mask as the only genome."""
  return [terms.best.mask]


def _draw_ratios(rng: np.random.Generator, terms: Terms, parent: Genome | None) -> Genome:
  """Draws a keep ratio for each group, log-uniform in [0.1, 1]; only their proportions matter."""
  return 0.1 ** rng.random(len(terms.constraints.graph.groups))


def _change_ratios(rng: np.random.Generator, terms: Terms, ratios: Genome | None) -> Genome:
  """Multiplies each ratio, with probability 1/3, by a log-normal factor."""
  if ratios is None:
    return _draw_ratios(rng, terms, None)
  chosen = rng.random(len(ratios)) < 1 / 3
  return ratios * np.exp(0.5 * chosen * rng.standard_normal(len(ratios)))


def _order_of_ratios(rng: np.random.Generator, terms: Terms, ratios: Genome) -> np.ndarray:
  """Orders channels by their groups' ratios, and within a group by the best classical order."""
  return order_by_ratios(terms.constraints.graph, terms.best.order, ratios)


def _change_bits(rng: np.random.Generator, terms: Terms, mask: Genome) -> Genome:
  """Exchanges kept for removed channels: one pair, and each further pair with probability 1/2."""
  kept, removed = np.flatnonzero(mask), np.flatnonzero(~mask)
  pairs = min(rng.geometric(0.5), len(kept), len(removed))
  child = mask.copy()
  child[rng.choice(kept, pairs, replace=False)] = False
  child[rng.choice(removed, pairs, replace=False)] = True
  return child


def _order_of_bits(rng: np.random.Generator, terms: Terms, mask: Genome) -> np.ndarray:
  """Orders kept channels before removed ones, each in random order.

  Therefore the channels that `allocate` removes or adds to meet the budgets are drawn at random.
  """
  return ranks(mask + rng.random(len(mask)))


STRATEGIES: dict[str, Strategy] = {
  # Draws ratios per group, independently for each mask.
  "random_ratios": Strategy(_no_parents, _draw_ratios, _order_of_ratios),
  # Evolves ratios per group.
  "evolve_ratios": Strategy(_no_parents, _change_ratios, _order_of_ratios),
  # Evolves the bits themselves, starting from the best classical mask.
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

  The parents of each generation are drawn from the best masks of all earlier generations. If a
  drawn mask was scored before, or is the best classical mask, another mask is drawn. If a thousand
  draws give no new mask, the strategy can hardly reach any more, and the search ends.

  Args:
    strategy: a key of `STRATEGIES`.
    terms: the network's constraints, and the best classical pruner.
    score: called with masks `[generation, N]` each time; the last call may have fewer masks.
    num_masks: number of masks to score.
    generation: number of masks scored together.
    parents: number of the best masks from which parents are drawn.
    seed: seed of all random numbers.
    known: bytes of further masks that were scored before.

  Raises:
    InputError: if the strategy is unknown.
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
        # Children inherit bits as `allocate` repaired them, but ratios as they were drawn.
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
  strategy: str, problem: PruningProblem, scorer: Scorer, evaluations: int, seed: int
) -> SearchResult:
  """Searches without a learner, scoring as many masks as cost what an agent spent.

  The search scores fewer masks if the strategy reaches no more new ones. Classical masks count as
  scored masks too. A generation has as many masks as the agent has samples per update, and a
  quarter as many parents.

  Args:
    strategy: a key of `STRATEGIES`.
    problem: the network to prune, with its constraints and data.
    scorer: scores the problem's masks, by the agent's settings.
    evaluations: number of masks to score; see `SearchResult.passes` for what an agent spent.
    seed: seed of all random numbers.

  Raises:
    InputError: if the strategy is unknown, or there are fewer evaluations than classical masks.
  """
  start = time.monotonic()
  best = best_classical(problem, scorer)
  score = float(scorer(best.mask[None])[0][0])
  terms = Terms(problem.constraints, best, score)
  if (num_masks := evaluations - len(scorer.known)) < 0:
    raise InputError(
      f"{evaluations} evaluations are too few: every search scores the {len(scorer.known)} "
      "classical masks first, so give at least as many"
    )
  generation = scorer.config.samples
  search_without_learning(
    strategy, terms, lambda masks: scorer(masks)[0], num_masks, generation,
    max(1, generation // 4), seed, scorer.known,
  )  # fmt: skip
  return scorer.result(time.monotonic() - start)
