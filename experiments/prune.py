"""Prunes a network: `python -m experiments.prune --workdir=DIR`.

Trains or restores the dense network, brings every classical pruner to the budgets, searches with
the graph agent, fine-tunes all of them with one recipe, and prints the comparison.
Writes `result.json`, `metrics.jsonl`, `masks.npz` (every method's mask by name) and `pruned/`,
which `gatprune_jax.load` reads.
"""

from collections.abc import Mapping
import os
import shutil
from typing import Any

import jax.numpy as jnp
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
from gatprune_jax.channels import Constraints, check_finite
from gatprune_jax.evaluation import steps_per_epoch
from gatprune_jax.processes import from_first, is_first
from gatprune_jax.report import Row, comparison
from gatprune_jax.search import Task, search


def main(settings: Settings, run: Run) -> None:
  """Runs the whole job, or says what a finished workdir holds."""
  if runs.inspect(run.workdir, "prune", run.config) is runs.Status.FINISHED:
    methods = runs.read_result(run.workdir, "prune")["methods"]
    print(f"{run.workdir} is finished:\n{comparison([Row(**row) for row in methods])}")
    return
  # --- Everything that can be refused is refused before anything is written.
  prepared = prepare(settings, settings.budgets)
  network = prepared.network
  variables = dense.restore_dense(settings, network) if settings.dense.checkpoint else None
  check_finite(variables)
  steps_per_epoch(settings.finetune, prepared.data.train)
  with runs.claim(run.workdir, "prune", run.config):
    rows = prune(settings, run, prepared, variables)
  print(comparison(rows))
  path = os.path.join(run.workdir, "pruned")
  print(f"The pruned network is in {path}: gatprune_jax.load({path!r}) runs it.")


def prune(settings: Settings, run: Run, prepared: Prepared, variables: Any) -> list[Row]:
  """Does the job in the workdir; variables of None are trained first."""
  data, network, constraints = prepared.data, prepared.network, prepared.constraints
  graph = constraints.graph
  workdir = run.workdir
  journal = Journal(run, settings.checkpoints, workdir)
  if variables is None:
    variables = dense.train_dense(settings, network, data, journal)

  # --- Classical pruners, and the search.
  task = make_task(settings, prepared, variables)
  pruners = task.pruners
  found_path = os.path.join(workdir, "found.npz")
  if (saved := from_first(lambda: load_found(found_path))) is None:
    saved = [find(settings, task, journal)]
    save_found(found_path, saved)
  (found,) = saved

  # --- The same fine-tuning for every mask.
  names = [pruner.name for pruner in pruners]
  masks = np.concatenate([np.stack([pruner.mask for pruner in pruners]), found.masks])
  judge = Judge(settings, network, graph, variables, data.train, masks)
  finetuned = judge.finetune(journal)

  # --- Accuracies. The select split chooses among the agent's shortlist; test only reports.
  select_before, select_after = judge.before(data.select), finetuned.accuracies(data.select)
  chosen = len(names) + int(select_after[len(names) :].argmax())
  small = finetuned.compact(chosen)
  test_before, test_after = judge.before(data.test), finetuned.accuracies(data.test)

  # --- Results.
  everything = np.ones(graph.num_channels)
  full_macs, full_params = gp.macs(graph, everything), gp.params(graph, everything)

  def row(method, mask, *accuracies):
    macs, params = gp.macs(graph, mask), gp.params(graph, mask)
    return Row(
      method, round(macs), round(params), macs / full_macs, params / full_params,
      *(float(accuracy) for accuracy in accuracies),
    )  # fmt: skip

  accuracies = np.stack([select_before, select_after, test_before, test_after], axis=1)
  dense_select = dense.accuracy(network.eval_fn, variables, data.select)
  dense_test = dense.accuracy(network.eval_fn, variables, data.test)
  rows = [row("dense", everything, dense_select, dense_select, dense_test, dense_test)]
  rows += [row(name, masks[i], *accuracies[i]) for i, name in enumerate(names)]
  rows += [row("agent", masks[chosen], *accuracies[chosen])]
  agent, mask = rows[-1], masks[chosen]
  compact_accuracy = dense.accuracy(small.apply, small.variables, data.test)
  with runs.whole_file(os.path.join(workdir, "masks.npz")) as file:
    np.savez(file, agent=mask, **{n.replace(" ", "_"): masks[i] for i, n in enumerate(names)})
  example = jnp.asarray(data.train.x[:1])
  if is_first():
    pruned_path = os.path.join(workdir, "pruned")
    shutil.rmtree(pruned_path, ignore_errors=True)  # of an earlier, unfinished run
    gp.save(pruned_path, small, example)
  runs.write_result(
    workdir,
    {
      "network": network.name,
      "dataset": data.name,
      "seed": settings.seed,
      "budgets": settings.budgets,
      "dense": {"macs": rows[0].macs, "params": rows[0].params, "test_accuracy": dense_test},
      "pruned": {
        "macs": agent.macs,
        "params": agent.params,
        "macs_ratio": agent.macs_ratio,
        "params_ratio": agent.params_ratio,
        "test_accuracy": compact_accuracy,
        "test_accuracy_before_finetune": agent.test_before,
        "widths": {group.name: int(mask[group.channels].sum()) for group in graph.groups},
      },
      "feasible": constraints.feasible(mask),
      "search": {
        "evaluations": found.evaluations,
        "updates": settings.search.updates,
        "seconds": found.seconds,
      },
      "methods": [row._asdict() for row in rows],
      "versions": runs.versions(),
    },
  )
  journal.forget("finetune")
  return rows


def find(settings: Settings, task: Task, journal: Journal) -> Found:
  """The agent's shortlist."""
  best = -np.inf  # accuracy of the best feasible sample so far
  with journal.loop("search", "search update", settings.search.updates) as loop:

    def on_update(progress):
      nonlocal best
      best = max(best, float(progress.metrics["best_feasible_accuracy"]))
      line = shown(task.constraints, progress.metrics, best)
      loop.record(progress.update, progress.metrics, line)

    store = loop.store(journal.every.updates, lambda step: step)
    return as_found("agent", search(task, settings.search, settings.seed, on_update, store))


def shown(
  constraints: Constraints, metrics: Mapping[str, np.ndarray], best: float
) -> dict[str, str]:
  """What the search's progress line shows of an update, beside the best accuracy so far."""
  costs = zip(constraints.names, metrics["cost"], constraints.limits, strict=True)
  return {
    **{name: f"{metrics[name]:.3f}" for name in ("reward", "accuracy")},
    "cost": " ".join(f"{name} {ratio:.3f}/{limit:g}" for name, ratio, limit in costs),
    "lambda": " ".join(f"{value:.2f}" for value in metrics["multiplier"]),
    "entropy": f"{metrics['entropy']:.3f}",
    "best_feasible": f"{best:.3f}" if np.isfinite(best) else "none",
  }


if __name__ == "__main__":
  start(main)
