"""Compares methods over budgets and seeds: `python -m experiments.compare --workdir=DIR`.

Every seed has one dense network. At every budget the classical pruners, the agent in its variants,
and searches given the agent's number of scored masks get the same data and the same fine-tuning.
Each seed and budget leaves a file in `rows/`, so that the same command continues after
an interruption, and beside it the masks that each method found. At the end it writes `compare.json`
(all rows), `compare.md` (mean and standard deviation) and `compare.png`.
"""

from collections.abc import Sequence
import dataclasses
import os

import jax
import numpy as np

from experiments import dense
from experiments.found import Found, as_found, load_found, save_found
from experiments.journal import Journal, Run
from experiments.judging import Judge
from experiments.settings import Settings
from experiments.starting import start
from experiments.task import Prepared, make_task, prepare
import gatprune_jax as gp
from gatprune_jax import workdir as runs
from gatprune_jax.evaluation import steps_per_epoch
from gatprune_jax.plot import plot_comparison
from gatprune_jax.processes import from_first, is_first
from gatprune_jax.report import CompareRow, comparison_over_seeds
from gatprune_jax.search import SEARCHES, SearchConfig, SearchResult, Task, search


def main(settings: Settings, run: Run) -> None:
  """Makes the rows that are missing, and the tables."""
  dense.refuse_checkpoint(settings)
  plans = []
  for seed in settings.compare.seeds:  # refuse what cannot run before anything is written
    for budget in settings.compare.budgets:
      plan = dataclasses.replace(settings, seed=seed)
      plans.append((plan, budget, prepare(plan, {"macs": budget})))
      if plan.compare.finetune:
        steps_per_epoch(plan.finetune, plans[-1][-1].data.train)
  if runs.inspect(run.workdir, "compare", run.config) is runs.Status.FINISHED:
    path = os.path.join(run.workdir, "compare.json")
    rows = [CompareRow(**row) for row in from_first(lambda: runs.read_json(path))]
    print(comparison_over_seeds(rows, settings.compare.finetune))
    return
  with runs.claim(run.workdir, "compare", run.config):
    table = make_tables(settings, run, plans)
  print(table)


def make_tables(
  settings: Settings, run: Run, plans: Sequence[tuple[Settings, float, Prepared]]
) -> str:
  """Makes the rows that are missing, and writes all of them; returns the table."""
  workdir = run.workdir
  # The same programs run for every seed: compile them once.
  if not jax.config.jax_compilation_cache_dir:
    compiled = os.path.join(os.path.abspath(workdir), "compiled")
    jax.config.update("jax_compilation_cache_dir", compiled)
  rows: list[CompareRow] = []
  for plan, budget, prepared in plans:
    path = os.path.join(workdir, "rows", f"seed{plan.seed}-macs{budget}")
    if not from_first(lambda path=path: os.path.exists(f"{path}.json")):
      if is_first():
        os.makedirs(os.path.dirname(path), exist_ok=True)
      made = compare_once(plan, budget, prepared, run, f"{path}-masks.npz")
      runs.write_json(f"{path}.json", [row._asdict() for row in made])
    stored = from_first(lambda path=path: runs.read_json(f"{path}.json"))
    rows += [CompareRow(**row) for row in stored]
  table = comparison_over_seeds(rows, settings.compare.finetune)
  runs.write_json(os.path.join(workdir, "compare.json"), [row._asdict() for row in rows])
  with runs.whole_file(os.path.join(workdir, "compare.md")) as file:
    file.write(f"{table}\n".encode())
  named = [*settings.compare.variants, *settings.compare.searches]
  if is_first():
    plot_comparison(rows, named, settings.compare.finetune, os.path.join(workdir, "compare.png"))
  runs.write_result(workdir, {"rows": len(rows), "versions": runs.versions()})
  return table


def compare_once(
  settings: Settings, budget: float, prepared: Prepared, run: Run, masks_path: str
) -> list[CompareRow]:
  """All methods on one seed's network at one budget; masks found before are not searched again."""
  journal = Journal(run, settings.checkpoints, os.path.join(run.workdir, f"seed{settings.seed}"))
  data, network, graph = prepared.data, prepared.network, prepared.graph
  variables = dense.train_dense(settings, network, data, journal)
  task = make_task(settings, prepared, variables)
  if (found := from_first(lambda: load_found(masks_path))) is None:
    found = find_masks(settings, task, journal, budget)
    save_found(masks_path, found)

  masks = np.concatenate([method.masks for method in found])
  judge = Judge(settings, network, graph, variables, data.train, masks)
  before = judge.before(data.select)
  phase = f"finetune {budget}"
  finetuned = judge.finetune(journal, phase) if settings.compare.finetune else None
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
  journal.forget(phase)
  return rows


def find_masks(settings: Settings, task: Task, journal: Journal, budget: float) -> list[Found]:
  """Runs every method, the classical ones first, then the agent's variants."""
  found = [Found(pruner.name, pruner.mask[None], 0, 0.0) for pruner in task.pruners]
  variants = {
    name: _run_variant(name, config, settings.seed, task, journal, budget)
    for name, config in settings.compare.variants.items()
  }
  found += [as_found(name, result) for name, result in variants.items()]
  first = next(iter(variants.values()))
  for name in settings.compare.searches:
    result = SEARCHES[name](task, settings.search, first.evaluations, settings.seed)
    found.append(as_found(name, result))
  return found


def _run_variant(
  name: str, config: SearchConfig, seed: int, task: Task, journal: Journal, budget: float
) -> SearchResult:
  """One agent, with its metrics under `NAME BUDGET` and a progress line."""
  title = f"seed {seed}, macs {budget}, {name}: update"
  with journal.loop(f"{name} {budget}", title, config.updates) as loop:

    def on_update(progress):
      shown = {"accuracy": f"{progress.metrics['accuracy']:.3f}"}
      loop.record(progress.update, progress.metrics, shown)

    store = loop.store(journal.every.updates, lambda step: step)
    return search(task, config, seed, on_update, store)


if __name__ == "__main__":
  start(main)
