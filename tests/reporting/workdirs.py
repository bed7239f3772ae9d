"""Workdirs of finished runs that took no training: their files are written as the mains do."""

import json
import os

import numpy as np

from experiments.common.config_tree import as_json
from experiments.common.settings import Settings
from gatprune_jax.reporting import EXPLANATION, Explanation, write_explanation
from gatprune_jax.reporting.explanation import GroupOutcome, LayerOutcome
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.report import CompareRow, Row

DEFAULTS = as_json(Settings())
METHODS = [
  Row("dense", 2000, 300, 1.0, 1.0, 0.99, 0.99, 0.985, 0.985),
  Row("l1 global", 990, 120, 0.495, 0.4, 0.41, 0.95, 0.405, 0.9425),
  Row("l1 uniform", 980, 110, 0.49, 0.37, 0.51, 0.94, 0.515, 0.9325),
  Row("agent", 995, 140, 0.4975, 0.47, 0.81, 0.98, 0.7975, 0.9775),
]


def explanation():
  """Returns what became of two layers, the second of which reads and writes the first's channels.

  The group "stem" keeps two of four channels, and magnitude would keep channel 1 instead of 3.
  """
  stem = GroupOutcome("params/stem/kernel", [True, False, False, True], [0, 1, 3, 2],
                      [0.25, 0.875, 0.5, 0.125])  # fmt: skip
  inner = GroupOutcome("params/block/kernel", [True, False], [0, 1], [None, 0.75])
  layers = [
    LayerOutcome("params/stem/kernel", "conv", [], [0], 400.0, 200.0),
    LayerOutcome("params/block/kernel", "conv", [0], [1], 800.0, 200.0),
    LayerOutcome("params/head/kernel", "dense", [0, 1], [], 60.0, 30.0),
  ]
  return Explanation([stem, inner], layers)


def write_metrics(path, phases):
  """Writes lines of metrics: {phase: number of budgets}, three updates each."""
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(path, "w") as file:
    for phase, budgets in phases.items():
      for step in (1, 2, 3):
        line = {"phase": phase, "step": step, "seconds": 0.1, "reward": 0.1 * step,
                "entropy": 0.4 / step, "cost": [0.6 / step] * budgets,
                "multiplier": [None if step == 2 else 0.5] * budgets}  # fmt: skip
        file.write(json.dumps(line) + "\n")


def prune_run(path, explained=True, **changes):
  """Writes the workdir of a run of experiments.prune; `changes` are those of its config."""
  config = {**DEFAULTS, "dataset": "digits", "seed": 7, **changes}
  with runs.claim(path, "prune", config):
    if explained:
      write_explanation(os.path.join(path, EXPLANATION), explanation())
      write_metrics(os.path.join(path, "metrics.jsonl"), {"search": 2})
    methods = [row._asdict() for row in METHODS]
    result = {"seed": 7, "methods": methods, "versions": runs.versions()}
    runs.write_result(path, result)
  return path


def compare_run(path, explained=True):
  """Writes the workdir of a run of experiments.compare: two budgets, two seeds, four methods."""
  compare = {**DEFAULTS["compare"], "seeds": [0, 1], "budgets": [0.5, 0.25],
             "searches": ["evolve_bits"]}  # fmt: skip
  rng, rows = np.random.default_rng(0), []
  with runs.claim(path, "compare", {**DEFAULTS, "compare": compare}):
    for seed in compare["seeds"]:
      for budget in compare["budgets"]:
        for method in ("l1 global", "l1 uniform", "agent", "evolve_bits"):
          scores = [round(float(score), 4) for score in rng.uniform(0.3, 0.9, 3)]
          rows.append(
            CompareRow(method, budget, seed, budget, budget, *scores, 9, 2.0, [0.5, 0.75])
          )
        if explained:
          cell = os.path.join(path, "rows", f"seed{seed}-macs{budget}-{EXPLANATION}")
          os.makedirs(os.path.dirname(cell), exist_ok=True)
          write_explanation(cell, explanation())
      if explained:
        phases = {f"agent {budget}": 1 for budget in compare["budgets"]}
        write_metrics(os.path.join(path, f"seed{seed}", "metrics.jsonl"), phases)
    runs.write_json(os.path.join(path, "compare.json"), [row._asdict() for row in rows])
    runs.write_result(path, {"rows": len(rows), "versions": runs.versions()})
  return path
