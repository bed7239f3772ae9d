"""The steps of pruning, from a problem to its outcome.

The steps are the agent's search, the same fine-tuning for the masks of every method, the choice of
the best mask of each method, and the table.
"""

from collections.abc import Mapping
import dataclasses
import os

import jax.numpy as jnp
import numpy as np

from gatprune_jax import channels
from gatprune_jax.channels import Compact, Constraints
from gatprune_jax.data import Dataset
from gatprune_jax.evaluation import mean_score
from gatprune_jax.pruning.explaining import explain_mask
from gatprune_jax.pruning.judging import Judgement, judge
from gatprune_jax.pruning.latency import Latencies, measured_latencies
from gatprune_jax.pruning.proposals import Proposal, as_proposal, load_proposals, save_proposals
from gatprune_jax.pruning.pruned import Pruned, in_own_form
from gatprune_jax.runs.logger import ProgressLogger
from gatprune_jax.runs.report import Row
from gatprune_jax.runtime.processes import from_first
from gatprune_jax.search import PruningProblem, SearchConfig, search
from gatprune_jax.training import Recipe

AGENT, DENSE = "agent", "dense"
_PROPOSALS = "proposals.npz"  # file of the agent's shortlist


@dataclasses.dataclass(frozen=True)
class Plan:
  """Settings of a pruning run.

  Attributes:
    search: settings of the agent's search.
    finetune: recipe with which the masks of every method are fine-tuned.
    side_by_side: whether all masks are fine-tuned together in one step; see `finetune`.
    seed: seed of the search and of the fine-tuning.
  """

  search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
  finetune: Recipe = dataclasses.field(default_factory=Recipe)
  side_by_side: bool = True
  seed: int = 0


def prune_problem(
  problem: PruningProblem,
  data: Dataset,
  plan: Plan,
  logger: ProgressLogger,
  folder: str | None = None,
) -> Pruned:
  """Searches, fine-tunes the agent's and the classical masks, and returns the agent's best network.

  The select split chooses among the masks of the agent's shortlist; the test split only reports.

  Args:
    problem: the network, budgets, task and classical masks.
    data: the data set from which the problem was made.
    plan: settings of the search and of the fine-tuning.
    logger: logs the loops and saves their state.
    folder: where the agent's shortlist is kept after the search, and where measured latencies are
      kept at the end; what is there already and can be read is not found again. None keeps no
      files.
  """
  proposals_path = None if folder is None else os.path.join(folder, _PROPOSALS)
  saved = None if proposals_path is None else from_first(lambda: load_proposals(proposals_path))
  agent = find(problem, plan, logger) if saved is None else saved[0]
  if proposals_path is not None and saved is None:
    save_proposals(proposals_path, [agent])
  proposals = [*classical_proposals(problem), agent]
  judgement = judge(
    problem, data, proposals, plan.search, plan.finetune,
    seed=plan.seed, side_by_side=plan.side_by_side, logger=logger,
  )  # fmt: skip
  network, chosen = problem.network, judgement.choices[-1].chosen
  small = judgement.finetuned.network(chosen)
  example = jnp.asarray(data.train.x[:1])
  mask = judgement.masks[chosen]
  masks = {choice.proposal.method: judgement.masks[choice.chosen] for choice in judgement.choices}
  everything = np.ones(problem.constraints.graph.num_channels, bool)
  latencies = measured_latencies(
    problem.constraints, network, {DENSE: everything, **masks}, example, folder
  )
  return Pruned(
    network=Compact(small.eval_fn, small.variables, small.origin),
    module=in_own_form(network, small, example),
    trainable=small,
    mask=mask,
    costs=problem.constraints.costs(mask),
    masks=masks,
    rows=make_rows(problem, data, judgement, latencies),
    metric=problem.task.metric,
    graph=problem.constraints.graph,
    search=agent,
    example=example,
    explanation=explain_mask(problem, mask, plan.search),
  )


def classical_proposals(problem: PruningProblem) -> list[Proposal]:
  """Returns the proposals of the classical pruners: one mask each, without any evaluation."""
  return [Proposal(pruner.name, pruner.mask[None], 0, 0.0) for pruner in problem.pruners]


def find(problem: PruningProblem, plan: Plan, logger: ProgressLogger) -> Proposal:
  """Runs the agent's search and returns its shortlist.

  Args:
    problem: the network, budgets, task and classical masks.
    plan: settings of the search, and its seed.
    logger: logs the updates of the search and saves its state.
  """
  best = -np.inf  # highest mean score of a feasible sample since this process began the loop
  with logger.loop("search", "search update", plan.search.updates) as loop:

    def on_update(progress):
      nonlocal best
      best = max(best, float(progress.metrics["best_feasible_accuracy"]))
      loop.record(
        progress.update, progress.metrics, shown(problem.constraints, progress.metrics, best)
      )

    checkpointer = loop.checkpointer(logger.every.updates, lambda step: step)
    count = lambda scored, most: loop.count("search exchange", scored, most)
    result = search(problem, plan.search, plan.seed, on_update, checkpointer, count)
    return as_proposal(AGENT, result)


def shown(
  constraints: Constraints, metrics: Mapping[str, np.ndarray], best: float
) -> dict[str, str]:
  """Returns the values that the search's progress line shows after an update.

  Args:
    constraints: the names and limits of the budgets, K of them.
    metrics: metrics of the update: scalars, except "cost" and "multiplier" of shape `[K]`.
    best: highest mean score of a feasible sample so far; -inf before there is one.
  """
  costs = zip(constraints.names, metrics["cost"], constraints.limits, strict=True)
  return {
    **{name: f"{metrics[name]:.3f}" for name in ("reward", "accuracy")},
    "cost": " ".join(f"{name} {ratio:.3f}/{limit:g}" for name, ratio, limit in costs),
    "lambda": " ".join(f"{value:.2f}" for value in metrics["multiplier"]),
    "entropy": f"{metrics['entropy']:.3f}",
    "best_feasible": f"{best:.3f}" if np.isfinite(best) else "none",
  }


def make_rows(
  problem: PruningProblem, data: Dataset, judgement: Judgement, latencies: Latencies
) -> list[Row]:
  """Returns the rows of the table: the dense network, and the chosen mask of every method.

  Args:
    problem: the dense network, its task and its budgets.
    data: the data set, of which the select and test parts are used.
    judgement: scores of the masks of all methods, and the chosen masks.
    latencies: what the networks take on the device at hand; empty if that was not measured.
  """
  graph, constraints = problem.constraints.graph, problem.constraints
  everything = np.ones(graph.num_channels)
  full = (problem.network.origin or channels.whole(graph)).costs

  def row(method: str, mask: np.ndarray, *scores: float) -> Row:
    macs, params = channels.macs(graph, mask), channels.params(graph, mask)
    others = {k: v for k, v in constraints.costs(mask).items() if k not in ("macs", "params")}
    return Row(
      method, round(macs), round(params), macs / full["macs"], params / full["params"],
      *map(float, scores), others, latencies.get(method, {}),
    )  # fmt: skip

  network, task = problem.network, problem.task
  select, test = (
    mean_score(network, task, network.variables, split) for split in (data.select, data.test)
  )
  rows = [row(DENSE, everything, select, select, test, test)]
  for choice in judgement.choices:
    columns = (
      judgement.select_before, judgement.select_after, judgement.test_before, judgement.test_after
    )  # fmt: skip
    scores = [column[choice.chosen] for column in columns]
    rows.append(row(choice.proposal.method, judgement.masks[choice.chosen], *scores))
  return rows
