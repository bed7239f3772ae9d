"""Compares methods over budgets and seeds: `python -m experiments.compare --workdir=DIR`.

Every seed has one dense network. At every budget the classical pruners, the agent in its variants,
and the other searches get the same data and the same fine-tuning. Each of the other searches may
score as many masks as cost what the first variant of the agent spent, in gradient steps and forward
passes.

Every seed and budget has two files in `rows/`: the rows, which are written when all methods are
done, and the masks that the methods found, which are saved after each method. The same command
therefore continues after an interruption. With `--config.compare.start=DIR` the dense networks and
the masks are those of a finished comparison, and are judged by other settings of the fine-tuning.
With `--config.compare.parts=(DIR,DIR)` whatever seeds and budgets are done in other workdirs, of
the same settings, are taken from there, so that several machines can share the work.
A third file says what became of every channel in the network of the first variant. At the end the
command writes `compare.json` (all rows), `compare.md` (mean and standard deviation), `compare.png`
and `report.html`, which shows all of it.
"""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import os

import numpy as np

from experiments.common import dense, earlier
from experiments.common.app import start
from experiments.common.cells import Plan, plan_cells
from experiments.common.config_tree import as_json
from experiments.common.preparing import Setup, problem_of
from experiments.common.settings import Settings
import gatprune_jax as gp
from gatprune_jax import InputError, reporting
from gatprune_jax.data import Dataset
from gatprune_jax.pruning import (
  Judgement,
  Proposal,
  as_proposal,
  classical_proposals,
  explain_mask,
  finetune,
  judge,
  load_proposals,
  save_proposals,
)
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.logger import Run, RunLogger
from gatprune_jax.runs.plot import plot_comparison
from gatprune_jax.runs.report import CompareRow, comparison_over_seeds
from gatprune_jax.runtime.preemption import Preempted
from gatprune_jax.runtime.processes import from_first, is_first
from gatprune_jax.runtime.whole_files import whole_file
from gatprune_jax.search import (
  PASSES_OF_STEP,
  SEARCHES,
  PruningProblem,
  Scorer,
  SearchConfig,
  SearchResult,
  passes_of_score,
  search,
)
from gatprune_jax.training import steps_per_epoch


def main(settings: Settings, run: Run) -> None:
  """Runs the methods whose rows are missing, then writes and prints the tables."""
  dense.refuse_checkpoint(settings)
  if "ratio_agent" in settings.compare.searches and "l1" not in settings.criteria:
    raise InputError(
      "compare searches have ratio_agent, which needs l1, and criteria are "
      f"{', '.join(settings.criteria)}: add l1, or leave ratio_agent out"
    )
  if runs.inspect(run.workdir, "compare", run.config) is runs.Status.FINISHED:
    reporting.complete_report(run.workdir, as_json(Settings()))
    path = os.path.join(run.workdir, "compare.json")
    rows = [CompareRow(**row) for row in from_first(lambda: runs.read_json(path))]
    print(comparison_over_seeds(rows, settings.compare.finetune))
    return
  # Bad settings are refused before a file is written.
  compare = settings.compare
  earlier.check(compare, run.config)
  plans = plan_cells(settings, compare.seeds, compare.budgets, compare.limits)
  earlier.check_networks(compare.parts, run.workdir, plans)
  if settings.compare.finetune:
    for plan in plans:
      steps_per_epoch(plan.settings.finetune, plan.prepared.data.train)
  with runs.claim(run.workdir, "compare", run.config):
    table = make_tables(settings, run, plans)
  print(table)
  print(f"\nThe report is in {os.path.join(run.workdir, reporting.REPORT)}.")


def make_tables(settings: Settings, run: Run, plans: Sequence[Plan]) -> str:
  """Makes the rows that are missing, writes all rows, and returns the table as markdown.

  Args:
    settings: settings of the experiment.
    run: the workdir and the config of the run.
    plans: one for each seed and budget, from `plan_cells`.
  """
  workdir = run.workdir
  rows: list[CompareRow] = []
  for plan, budget, prepared in plans:
    path = earlier.path_of_cell(workdir, plan.seed, budget)
    if is_first():
      os.makedirs(os.path.dirname(path), exist_ok=True)
      earlier.take_cell(settings.compare, workdir, plan.seed, budget)
    if not from_first(lambda path=path: os.path.exists(f"{path}.json")):
      compare_once(plan, budget, prepared, run, path)
    stored = from_first(lambda path=path: runs.read_json(f"{path}.json"))
    rows += [CompareRow(**row) for row in stored]
  table = comparison_over_seeds(rows, settings.compare.finetune)
  runs.write_json(os.path.join(workdir, "compare.json"), [row._asdict() for row in rows])
  with whole_file(os.path.join(workdir, "compare.md")) as file:
    file.write(f"{table}\n".encode())
  named = [*settings.compare.variants, *settings.compare.searches]
  if is_first():
    plot_comparison(rows, named, settings.compare.finetune, os.path.join(workdir, "compare.png"))
  runs.write_result(workdir, {"rows": len(rows), "versions": runs.versions()})
  reporting.write_report(workdir, as_json(Settings()))
  return table


def compare_once(settings: Settings, budget: float, prepared: Setup, run: Run, path: str) -> None:
  """Runs all methods on one seed's network at one budget, and writes their rows.

  The rows go to `{path}.json`, the masks of each method to `{path}-masks.npz`, and what became of
  the channels of the first variant to `{path}-explained.json`. A method whose masks are in the file
  of masks already is not run again.

  Args:
    settings: settings of the experiment, with this seed.
    budget: largest share of the dense network's MACs.
    prepared: data, dense network and constraints for this seed and budget.
    run: the workdir, the config, and whether the process was asked to stop.
    path: path of both files, without their endings.
  """
  seed = f"seed{settings.seed}"
  logger = RunLogger(run, settings.checkpoints, os.path.join(run.workdir, seed))
  data, graph = prepared.data, prepared.constraints.graph
  if start := settings.compare.start:
    variables = dense.restore(os.path.join(start, seed), prepared.dense.network)
    problem = problem_of(settings, prepared, variables)
    proposals = earlier.masks_of_start(settings, budget)
  else:
    variables = dense.train_dense(settings, prepared.dense, data, logger)
    problem = problem_of(settings, prepared, variables)
    proposals = find_masks(settings, problem, logger, budget, run.should_stop, f"{path}-masks.npz")
  phase = f"finetune {budget}"
  judgement = judge(
    problem, data, proposals, settings.search,
    settings.finetune if settings.compare.finetune else None, seed=settings.seed,
    side_by_side=settings.finetune_side_by_side, logger=logger, phase=phase,
  )  # fmt: skip
  first_variant = next(iter(settings.compare.variants))
  (own,) = (choice for choice in judgement.choices if choice.proposal.method == first_variant)
  explanation = explain_mask(problem, judgement.masks[own.chosen], settings.search)
  reporting.write_explanation(f"{path}-{reporting.EXPLANATION}", explanation)
  ones, rows = np.ones(graph.num_channels), []
  full = settings.finetune.epochs if settings.compare.finetune else 0
  for method, first, chosen, epochs in judgement.choices:
    mask = judgement.masks[chosen]
    searched = method.passes / (PASSES_OF_STEP * data.train.num)
    rows.append(
      CompareRow(
        method=method.method,
        budget=budget,
        seed=settings.seed,
        macs_ratio=gp.macs(graph, mask) / gp.macs(graph, ones),
        params_ratio=gp.params(graph, mask) / gp.params(graph, ones),
        accuracy_before_finetune=float(judgement.select_before[first]),
        select_accuracy=float(judgement.select_after[chosen]),
        test_accuracy=float(judgement.test_after[chosen]),
        evaluations=method.evaluations,
        seconds=method.seconds,
        keep_ratios=[
          float(judgement.masks[first][group.channels].mean()) for group in graph.groups
        ],
        level=settings.search.level,
        epochs=full,
        cost=searched + epochs - full,
        costs=prepared.constraints.costs(mask),
      )
    )
  if settings.compare.equal_cost:
    rows.append(classical_at_equal_cost(settings, problem, data, judgement, rows, logger))
  runs.write_json(f"{path}.json", [row._asdict() for row in rows])
  logger.forget(phase)


def classical_at_equal_cost(
  settings: Settings,
  problem: PruningProblem,
  data: Dataset,
  judgement: Judgement,
  rows: Sequence[CompareRow],
  logger: RunLogger,
) -> CompareRow:
  """Fine-tunes the best classical pruner for as long as the agent searched and fine-tuned.

  Args:
    settings: settings of the experiment.
    problem: the pruning problem.
    data: the data set.
    judgement: the judgement of all methods.
    rows: the row of each method, in the judgement's order.
    logger: logs and saves the fine-tuning.

  Returns:
    The row of the classical pruner whose mask was best on the select part.
  """
  (agent,) = (row for row in rows if row.method == next(iter(settings.compare.variants)))
  named = {pruner.name for pruner in problem.pruners}
  pairs = [pair for pair in zip(rows, judgement.choices, strict=True) if pair[0].method in named]
  row, choice = max(pairs, key=lambda pair: pair[0].select_accuracy)
  epochs = agent.epochs + round(agent.cost)
  longer = dataclasses.replace(settings.finetune, epochs=epochs)
  phase = f"equal cost {row.budget}"
  tuned = finetune(
    problem, judgement.masks[[choice.chosen]], longer, settings.search, seed=settings.seed,
    side_by_side=settings.finetune_side_by_side, logger=logger, phase=phase,
  )  # fmt: skip
  select, test = (float(tuned.scores(split)[0]) for split in (data.select, data.test))
  logger.forget(phase)
  return row._replace(
    method=earlier.EQUAL_COST, select_accuracy=select, test_accuracy=test, epochs=epochs
  )


def find_masks(
  settings: Settings,
  problem: PruningProblem,
  logger: RunLogger,
  budget: float,
  should_stop: Callable[[int], bool],
  path: str,
) -> list[Proposal]:
  """Runs the classical pruners, then the agent's variants, then the other searches.

  The file at `path` is saved after each variant and each search. A method whose masks are in that
  file already is not run again.

  Args:
    settings: settings of the experiment; they name the variants and the searches.
    problem: the pruning problem.
    logger: logs and saves the agent's updates.
    budget: largest share of the dense network's MACs; a part of the names of logged phases.
    should_stop: number of methods that are done -> whether the process was asked to stop.
    path: the file of masks.

  Returns:
    The proposals of all methods, in the order above.

  Raises:
    Preempted: after a method, if the process was asked to stop; the masks are in the file.
  """
  classical = classical_proposals(problem)
  proposals = from_first(lambda: load_proposals(path)) or classical
  variants = settings.compare.variants
  for name in [*variants, *settings.compare.searches][len(proposals) - len(classical) :]:
    if name in variants:
      result = _run_variant(name, settings.variant(name), settings.seed, problem, logger, budget)
    else:
      # As many masks as cost what the first variant spent, at whichever levels it did.
      each = passes_of_score(settings.search, problem.reward.num)
      evaluations = proposals[len(classical)].passes // each
      title = f"seed {settings.seed}, macs {budget}, {name}: mask"
      with contextlib.closing(logger.line(title, evaluations)) as line:
        scorer = Scorer(problem, settings.search, line.count)
        result = SEARCHES[name](problem, scorer, evaluations, settings.seed)
    proposals = [*proposals, as_proposal(name, result)]
    save_proposals(path, proposals)
    if should_stop(len(proposals)):
      raise Preempted(f"stopped after {name}, whose masks are saved in {path}")
  return proposals


def _run_variant(
  name: str,
  config: SearchConfig,
  seed: int,
  problem: PruningProblem,
  logger: RunLogger,
  budget: float,
) -> SearchResult:
  """Runs one variant of the agent; logs its metrics as phase `NAME BUDGET`, and a progress line."""
  title = f"seed {seed}, macs {budget}, {name}: update"
  with logger.loop(f"{name} {budget}", title, config.updates) as loop:

    def on_update(progress):
      shown = {"accuracy": f"{progress.metrics['accuracy']:.3f}"}
      loop.record(progress.update, progress.metrics, shown)

    checkpointer = loop.checkpointer(logger.every.updates, lambda step: step)
    exchange = f"seed {seed}, macs {budget}, {name}: exchange"
    count = lambda scored, most: loop.count(exchange, scored, most)
    return search(problem, config, seed, on_update, checkpointer, count)


if __name__ == "__main__":
  start(main)
