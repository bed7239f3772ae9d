"""How many channels every group keeps."""

import numpy as np

from gatprune_jax.reporting.parts import Bar, Part, Table
from gatprune_jax.reporting.record import COMPARE, Run
from gatprune_jax.reporting.sections.network import shortened


def widths(run: Run, name: str) -> list[Part]:
  """Returns tables of every group's width, dense and pruned; in a comparison, means over seeds."""
  if not run.outcomes:
    return _shares(run) if run.experiment == COMPARE else []
  tables = []
  for label, outcomes in run.outcomes_by_label().items():
    body = []
    for place, group in enumerate(outcomes[0].explanation.groups):
      kept = np.mean([outcome.explanation.groups[place].num_kept for outcome in outcomes])
      shown = f"{kept:.1f}".removesuffix(".0")
      width = f"{group.width} \N{RIGHTWARDS ARROW} {shown}"
      body.append([shortened(group.name), Bar(width, float(kept) / group.width)])
    seeds = f", mean over {len(outcomes)} seeds" if len(outcomes) > 1 else ""
    caption = f"Channels of each group in the dense and in the agent's network{seeds}."
    headers = ("group", "channels")
    tables.append(Table(f"{label}: {caption}" if label else caption, headers, body))
  return tables


def _shares(run: Run) -> list[Part]:
  """Returns the mean kept share of each group, where the run left neither names nor widths."""
  tables = []
  for budget in sorted({row.budget for row in run.compared}, reverse=True):
    rows = [r.keep_ratios for r in run.compared if (r.method, r.budget) == (run.agent, budget)]
    body = [
      [f"group {place + 1}", Bar(f"{100 * share:.0f} %", share)]
      for place, share in enumerate(np.mean(rows, axis=0).tolist())
    ]
    caption = f"{budget:g} of the MACs: share of each group that the agent keeps, mean over seeds."
    tables.append(Table(caption, ("group", "channels kept"), body))
  return tables
