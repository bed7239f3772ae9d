"""The result in a sentence, and the table of all methods."""

from collections.abc import Sequence

import numpy as np

from gatprune_jax.reporting.parts import Part, Table, Text
from gatprune_jax.reporting.record import COMPARE, Run
from gatprune_jax.runs.report import (
  CompareRow,
  comparison_cells,
  methods_cells,
  shown_score,
)


def result(run: Run, name: str) -> list[Part]:
  """Returns what the agent's networks cost and score, beside the dense and the next best ones."""
  if run.experiment == COMPARE:
    budgets = sorted({row.budget for row in run.compared}, reverse=True)
    return [Text(_at_budget(run, budget), lead=True) for budget in budgets]
  after, before = sentences(run)
  return [Text(after, lead=True), Text(before)]


def sentences(run: Run) -> list[str]:
  """Returns what a pruned network costs and scores, after fine-tuning and before, in words."""
  whole, *classical, agent = run.methods
  best = max(classical, key=lambda row: row.select_after)
  score = lambda row, field: _score(getattr(row, field), run.metric)
  after = (
    f"The pruned network keeps {100 * agent.macs_ratio:.1f} % of the MACs and "
    f"{100 * agent.params_ratio:.1f} % of the parameters, and its {_named(run.metric)} on the test "
    f"part is {score(agent, 'test_after')} after fine-tuning; the dense network has "
    f"{score(whole, 'test_after')}, and the best classical pruner by the select part, "
    f"{best.method}, has {score(best, 'test_after')}."
  )
  before = (
    "Before any gradient step the same networks have "
    f"{score(agent, 'test_before')} and {score(best, 'test_before')}. "
    "This is one seed; experiments.compare measures several."
  )
  return [after, before]


def methods(run: Run, name: str) -> list[Part]:
  """Returns the table of all methods, one for each budget of a comparison."""
  if run.experiment != COMPARE:
    headers, rows = comparison_cells(run.methods, run.metric)
    told = "percent" if run.metric == "accuracy" else run.metric
    caption = (
      f"Costs, and scores on the select and test parts before and after fine-tuning ({told})."
    )
    return [Table(caption, headers, rows, run.agent)]
  tables = []
  for budget in sorted({row.budget for row in run.compared}, reverse=True):
    headers, rows = methods_cells([r for r in run.compared if r.budget == budget], run.finetuned)
    caption = (
      f"At most {budget:g} of the MACs: mean accuracy ± sample standard deviation over seeds, in "
      "percent; masks scored, and what they cost in epochs of fine-tuning."
    )
    tables.append(Table(caption, headers, rows, run.agent))
  return tables


def _named(metric: str) -> str:
  return "accuracy" if metric == "accuracy" else f"mean {metric}"


def _score(score: float, metric: str) -> str:
  return shown_score(score, metric) + (" %" if metric == "accuracy" else "")


def _at_budget(run: Run, budget: float) -> str:
  """Returns sentences on the agent and the best of the other methods at one budget.

  Methods that were fine-tuned for longer than the agent have a sentence of their own.
  """
  field = "test_accuracy" if run.finetuned else "accuracy_before_finetune"
  when = "after fine-tuning, test part" if run.finetuned else "before fine-tuning, select part"
  rows = [row for row in run.compared if row.budget == budget]
  compared = run.config["compare"]
  epochs = {row.method: row.epochs for row in sorted(rows, key=lambda row: row.epochs)}
  longer = [method for method, most in epochs.items() if most > epochs[run.agent]]
  others = {row.method for row in rows} - {*compared["variants"], *longer}
  mean = lambda method, name: np.mean([getattr(r, name) for r in rows if r.method == method])
  chosen_by = "select_accuracy" if run.finetuned else field
  best = max(sorted(others), key=lambda method: mean(method, chosen_by))
  of = lambda method: _over_seeds([row for row in rows if row.method == method], field)
  words = f"At {budget:g} of the MACs ({when}) the agent has {of(run.agent)}, and the best other "
  words += f"method by the select part, {best}, {of(best)}"
  if best in compared["searches"] and (classical := others - set(compared["searches"])):
    pruner = max(sorted(classical), key=lambda method: mean(method, chosen_by))
    words += f"; the best classical pruner, {pruner}, {of(pruner)}"
  further = [
    f" Fine-tuned for up to {epochs[method]} epochs instead of {epochs[run.agent]}, {method} has "
    f"{of(method)}."
    for method in longer
  ]
  return f"{words}.{''.join(further)}"


def _over_seeds(rows: Sequence[CompareRow], field: str) -> str:
  values = 100 * np.array([getattr(row, field) for row in rows])
  if len(values) == 1:
    return f"{values[0]:.1f} % (one seed)"
  return f"{values.mean():.1f} ± {values.std(ddof=1):.1f} % ({len(values)} seeds)"
