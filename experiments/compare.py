"""Compares methods over budgets and seeds: `python -m experiments.compare --workdir=DIR`.

Every seed has one dense network. At every budget the classical pruners, the agent in its variants,
and searches given the agent's number of scored masks get the same data and the same fine-tuning.
Each seed and budget leaves a file in `rows/`, so that the same command continues after
an interruption, and beside it the masks that each method found. At the end it writes `compare.json`
(all rows), `compare.md` (mean and standard deviation) and `compare.png`.
"""

from collections.abc import Sequence
import dataclasses
import json
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import dense
from experiments.judging import Judge
from experiments.settings import Settings, run
from experiments.task import Prepared, make_task, prepare
import gatprune_jax as gp
from gatprune_jax import workdir as runs
from gatprune_jax.channels import check_finite
from gatprune_jax.evaluation import steps_per_epoch
from gatprune_jax.metrics import MetricsFile, ProgressLine
from gatprune_jax.plot import plot_comparison
from gatprune_jax.report import CompareRow, comparison_over_seeds
from gatprune_jax.search import SEARCHES, SearchConfig, SearchResult, Task, search


class Found(NamedTuple):
  """What a method proposes."""

  method: str
  masks: np.ndarray  # [S, N], best by the method's own score first
  evaluations: int
  seconds: float


def save_found(path: str, found: Sequence[Found]) -> None:
  """Writes what all methods propose, whole or not at all: one array for each field of `Found`.

  Masks follow each other in one array; `count` says how many each method has.
  """
  columns = Found(*zip(*found, strict=True))._asdict()
  columns["count"] = [len(masks) for masks in columns["masks"]]
  columns["masks"] = np.concatenate(columns["masks"])
  with runs.whole_file(path) as file:
    np.savez(file, **columns)


def load_found(path: str) -> list[Found]:
  """Reads what `save_found` wrote."""
  with np.load(path) as columns:
    masks = np.split(columns["masks"], np.cumsum(columns["count"])[:-1])
    plain = (columns[name].tolist() for name in ("method", "evaluations", "seconds"))
    return [
      Found(method, some, evaluations, seconds)
      for some, method, evaluations, seconds in zip(masks, *plain, strict=True)
    ]


def main(settings: Settings, config: dict[str, Any], workdir: str) -> None:
  """Makes the rows that are missing, and the tables."""
  plans = []
  for seed in settings.compare.seeds:  # refuse what cannot run before anything is written
    for budget in settings.compare.budgets:
      plan = dataclasses.replace(settings, seed=seed)
      plans.append((plan, budget, prepare(plan, {"macs": budget})))
      if plan.compare.finetune:
        steps_per_epoch(plan.finetune, plans[-1][-1].data.train)
  if runs.inspect(workdir, "compare", config) is runs.Status.NEW:
    runs.claim(workdir, "compare", config)
  # The same programs run for every seed: compile them once.
  jax.config.update("jax_compilation_cache_dir", os.path.join(os.path.abspath(workdir), "compiled"))
  rows: list[CompareRow] = []
  for plan, budget, prepared in plans:
    path = os.path.join(workdir, "rows", f"seed{plan.seed}-macs{budget}")
    if not os.path.exists(f"{path}.json"):
      os.makedirs(os.path.dirname(path), exist_ok=True)
      made = compare_once(plan, budget, prepared, workdir, f"{path}-masks.npz")
      runs.write_json(f"{path}.json", [row._asdict() for row in made])
    with open(f"{path}.json") as file:
      rows += [CompareRow(**row) for row in json.load(file)]
  table = comparison_over_seeds(rows, settings.compare.finetune)
  runs.write_json(os.path.join(workdir, "compare.json"), [row._asdict() for row in rows])
  with open(os.path.join(workdir, "compare.md"), "w") as file:
    file.write(f"{table}\n")
  named = [*settings.compare.variants, *settings.compare.searches]
  plot_comparison(rows, named, settings.compare.finetune, os.path.join(workdir, "compare.png"))
  runs.write_result(workdir, {"rows": len(rows), "versions": runs.versions()})
  print(table)


def compare_once(
  settings: Settings, budget: float, prepared: Prepared, workdir: str, masks_path: str
) -> list[CompareRow]:
  """All methods on one seed's network at one budget; masks found before are not searched again."""
  folder = os.path.join(workdir, f"seed{settings.seed}")
  os.makedirs(folder, exist_ok=True)
  metrics = MetricsFile(os.path.join(folder, "metrics.jsonl"))
  data, network, graph = prepared.data, prepared.network, prepared.graph
  variables = dense.train_dense(settings, network, data, metrics, folder)
  check_finite(variables)
  task = make_task(settings, prepared, variables)
  if not os.path.exists(masks_path):
    save_found(masks_path, find_masks(settings, task, metrics, budget))
  found = load_found(masks_path)

  masks = np.concatenate([method.masks for method in found])
  judge = Judge(settings, network, graph, variables, data.train, masks)
  before = judge.before(data.select)
  phase = f"finetune {budget}"
  metrics.restart(phase)
  finetuned = judge.finetune(metrics, phase) if settings.compare.finetune else None
  select = before if finetuned is None else finetuned.accuracies(data.select)
  test = judge.before(data.test) if finetuned is None else finetuned.accuracies(data.test)

  ones = np.ones(graph.num_channels)
  rows, first = [], 0
  for method in found:
    # "before" is of the method's own first choice; the select split then picks among fine-tuned.
    last = first + len(method.masks)
    chosen = first + (0 if finetuned is None else int(select[first:last].argmax()))
    mask = masks[chosen]
    rows.append(
      CompareRow(
        method=method.method,
        budget=budget,
        seed=settings.seed,
        macs_ratio=gp.macs(graph, mask) / gp.macs(graph, ones),
        params_ratio=gp.params(graph, mask) / gp.params(graph, ones),
        accuracy_before_finetune=float(before[first]),
        select_accuracy=float(select[chosen]),
        test_accuracy=float(test[chosen]),
        evaluations=method.evaluations,
        seconds=method.seconds,
        keep_ratios=[float(masks[first][group.channels].mean()) for group in graph.groups],
      )
    )
    first = last
  return rows


def find_masks(settings: Settings, task: Task, metrics: MetricsFile, budget: float) -> list[Found]:
  """Runs every method, the classical ones first, then the agent's variants."""
  found = [Found(pruner.name, pruner.mask[None], 0, 0.0) for pruner in task.pruners]
  variants = {
    name: _run_variant(name, config, settings.seed, task, metrics, budget)
    for name, config in settings.compare.variants.items()
  }
  found += [as_found(name, result) for name, result in variants.items()]
  first = next(iter(variants.values()))
  for name in settings.compare.searches:
    result = SEARCHES[name](task, settings.search, first.evaluations, settings.seed)
    found.append(as_found(name, result))
  return found


def _run_variant(
  name: str, config: SearchConfig, seed: int, task: Task, metrics: MetricsFile, budget: float
) -> SearchResult:
  """One agent, with its metrics under `NAME BUDGET` and a progress line."""
  phase = f"{name} {budget}"
  metrics.restart(phase)
  line = ProgressLine(f"seed {seed}, macs {budget}, {name}: update", config.updates)

  def on_update(progress):
    metrics.write(phase, progress.update, progress.metrics)
    line.advance(accuracy=f"{progress.metrics['accuracy']:.3f}")

  result = search(task, config, seed, on_update)
  line.close()
  return result


def as_found(method: str, result: SearchResult) -> Found:
  """A search's shortlist."""
  return Found(method, result.masks, result.evaluations, result.seconds)


if __name__ == "__main__":
  run(main)
