"""Prunes a network: `python -m experiments.prune --workdir=DIR`.

Trains or restores the dense network, brings every classical pruner to the budgets, searches with
the graph agent, fine-tunes all of them with one recipe, and prints the comparison.
Writes `result.json`, `metrics.jsonl`, `masks.npz` (every method's mask by name) and `pruned/`,
which `gatprune_jax.load` reads.
"""

import os
import shutil
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments import dense
from experiments.judging import Judge
from experiments.settings import Settings, run
from experiments.task import make_task, prepare
import gatprune_jax as gp
from gatprune_jax import workdir as runs
from gatprune_jax.channels import check_finite
from gatprune_jax.evaluation import steps_per_epoch
from gatprune_jax.metrics import MetricsFile, ProgressLine
from gatprune_jax.report import Row, comparison
from gatprune_jax.search import search


def main(settings: Settings, config: dict[str, Any], workdir: str) -> None:
  """Runs the whole job, or says what a finished workdir holds."""
  # --- Everything that can be refused is refused before anything is written.
  prepared = prepare(settings, settings.budgets)
  data, network, graph, budgets = (
    prepared.data, prepared.network, prepared.graph, prepared.budgets
  )  # fmt: skip
  variables = dense.restore_dense(settings.checkpoint, network) if settings.checkpoint else None
  check_finite(variables)
  steps_per_epoch(settings.finetune, data.train)
  status = runs.inspect(workdir, "prune", config)
  if status is runs.Status.FINISHED:
    result = runs.read_result(workdir)
    print(f"{workdir} is finished:\n{comparison([Row(**row) for row in result['methods']])}")
    return
  runs.claim(workdir, "prune", config)

  # --- The dense network.
  metrics = MetricsFile(os.path.join(workdir, "metrics.jsonl"))
  metrics.restart("search", "finetune")
  if variables is None:
    variables = dense.train_dense(settings, network, data, metrics, workdir)
    check_finite(variables)

  # --- Classical pruners, and the search.
  task = make_task(settings, prepared, variables)
  pruners = task.pruners
  line = SearchLine(settings.search.updates, budgets, metrics)
  found = search(task, settings.search, settings.seed, line.on_update)
  line.close()

  # --- The same fine-tuning for every mask.
  names = [pruner.name for pruner in pruners]
  masks = np.concatenate([np.stack([pruner.mask for pruner in pruners]), found.masks])
  judge = Judge(settings, network, graph, variables, data.train, masks)
  finetuned = judge.finetune(metrics)

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
  np.savez(
    os.path.join(workdir, "masks.npz"), agent=mask,
    **{name.replace(" ", "_"): masks[i] for i, name in enumerate(names)},
  )  # fmt: skip
  pruned_path = os.path.join(workdir, "pruned")
  shutil.rmtree(pruned_path, ignore_errors=True)  # of an earlier, unfinished run
  gp.save(pruned_path, small, jnp.asarray(data.train.x[:1]))
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
      "feasible": budgets.feasible(mask),
      "search": {
        "evaluations": found.evaluations,
        "updates": settings.search.updates,
        "seconds": found.seconds,
      },
      "methods": [row._asdict() for row in rows],
      "versions": runs.versions(),
    },
  )
  print(comparison(rows))
  print(f"The pruned network is in {pruned_path}: gatprune_jax.load({pruned_path!r}) runs it.")


class SearchLine:
  """The progress line of the search."""

  def __init__(self, updates: int, budgets, metrics: MetricsFile):
    self._line = ProgressLine("search update", updates)
    self._budgets, self._metrics = budgets, metrics
    self._best = -np.inf  # accuracy of the best feasible sample so far

  def on_update(self, progress) -> None:
    """Logs one update."""
    values = progress.metrics
    self._metrics.write("search", progress.update, values)
    self._best = max(self._best, float(values["best_feasible_accuracy"]))
    cost = [
      f"{name} {ratio:.3f}/{limit:g}"
      for name, ratio, limit in zip(
        self._budgets.names, values["cost"], self._budgets.limits, strict=True
      )
    ]
    self._line.advance(
      reward=f"{values['reward']:.3f}",
      accuracy=f"{values['accuracy']:.3f}",
      cost=" ".join(cost),
      **{"lambda": " ".join(f"{value:.2f}" for value in values["multiplier"])},
      entropy=f"{values['entropy']:.3f}",
      best_feasible=f"{self._best:.3f}" if np.isfinite(self._best) else "none",
    )

  def close(self) -> None:
    """Ends the line."""
    self._line.close()


if __name__ == "__main__":
  run(main)
