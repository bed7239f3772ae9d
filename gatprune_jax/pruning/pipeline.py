"""From a problem to its outcome: search, the same fine-tuning for every method, the table."""

from collections.abc import Mapping
import dataclasses

import jax.numpy as jnp
import numpy as np

from gatprune_jax import channels
from gatprune_jax.channels import Compact, Constraints
from gatprune_jax.data import Dataset
from gatprune_jax.evaluation import mean_score
from gatprune_jax.pruning.judging import Judgement, judge
from gatprune_jax.pruning.proposals import Proposal, as_proposal, load_proposals, save_proposals
from gatprune_jax.pruning.pruned import Pruned, in_own_form
from gatprune_jax.runs.logger import ProgressLogger
from gatprune_jax.runs.report import Row
from gatprune_jax.runtime.processes import from_first
from gatprune_jax.search import PruningProblem, SearchConfig, search
from gatprune_jax.training import Recipe

AGENT, DENSE = "agent", "dense"


@dataclasses.dataclass(frozen=True)
class Plan:
  """How a problem is solved.

  Attributes:
    search: of the agent.
    finetune: of every method's masks.
    side_by_side: whether these are fine-tuned in one step; see `finetune`.
    seed: of the search and of the fine-tuning.
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
  proposals_path: str | None = None,
) -> Pruned:
  """Searches, fine-tunes the agent's and the classical masks, and chooses the agent's best.

  The select split chooses among the agent's shortlist; the test split only reports.

  Args:
    problem: what to prune.
    data: the parts of which the problem was made.
    plan: how.
    logger: where loops are told and saved.
    proposals_path: file of the agent's shortlist; where it exists, nothing is searched. None: no
      file.
  """
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
  return Pruned(
    network=Compact(small.eval_fn, small.variables),
    module=in_own_form(network, small, example),
    trainable=small,
    mask=mask,
    costs=problem.constraints.costs(mask),
    masks={c.proposal.method: judgement.masks[c.chosen] for c in judgement.choices},
    rows=make_rows(problem, data, judgement),
    metric=problem.task.metric,
    graph=problem.constraints.graph,
    search=agent,
    example=example,
  )


def classical_proposals(problem: PruningProblem) -> list[Proposal]:
  """What the classical pruners propose: one mask each, for no evaluation."""
  return [Proposal(pruner.name, pruner.mask[None], 0, 0.0) for pruner in problem.pruners]


def find(problem: PruningProblem, plan: Plan, logger: ProgressLogger) -> Proposal:
  """The agent's shortlist."""
  best = -np.inf  # score of the best feasible sample so far
  with logger.loop("search", "search update", plan.search.updates) as loop:

    def on_update(progress):
      nonlocal best
      best = max(best, float(progress.metrics["best_feasible_accuracy"]))
      loop.record(
        progress.update, progress.metrics, shown(problem.constraints, progress.metrics, best)
      )

    checkpointer = loop.checkpointer(logger.every.updates, lambda step: step)
    return as_proposal(AGENT, search(problem, plan.search, plan.seed, on_update, checkpointer))


def shown(
  constraints: Constraints, metrics: Mapping[str, np.ndarray], best: float
) -> dict[str, str]:
  """What the search's progress line shows of an update, beside the best score so far."""
  costs = zip(constraints.names, metrics["cost"], constraints.limits, strict=True)
  return {
    **{name: f"{metrics[name]:.3f}" for name in ("reward", "accuracy")},
    "cost": " ".join(f"{name} {ratio:.3f}/{limit:g}" for name, ratio, limit in costs),
    "lambda": " ".join(f"{value:.2f}" for value in metrics["multiplier"]),
    "entropy": f"{metrics['entropy']:.3f}",
    "best_feasible": f"{best:.3f}" if np.isfinite(best) else "none",
  }


def make_rows(problem: PruningProblem, data: Dataset, judgement: Judgement) -> list[Row]:
  """The table: the dense network, and of every method the mask that was chosen."""
  graph, constraints = problem.constraints.graph, problem.constraints
  everything = np.ones(graph.num_channels)
  full_macs, full_params = channels.macs(graph, everything), channels.params(graph, everything)

  def row(method: str, mask: np.ndarray, *scores: float) -> Row:
    macs, params = channels.macs(graph, mask), channels.params(graph, mask)
    others = {k: v for k, v in constraints.costs(mask).items() if k not in ("macs", "params")}
    return Row(
      method, round(macs), round(params), macs / full_macs, params / full_params,
      *map(float, scores), others,
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
