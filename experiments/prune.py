"""Prunes a network: `python -m experiments.prune --workdir=DIR`.

Trains or restores the dense network, brings the mask of every classical pruner within the budgets,
searches with the graph agent, fine-tunes the networks of all masks with one recipe, and prints the
comparison. Writes `result.json`, `metrics.jsonl`, `proposals.npz` (the agent's shortlist),
`masks.npz` (every method's mask by name), `explained.json` (what became of every channel),
`pruned/`, which `gatprune_jax.load` reads, and `report.html`, which shows all of it. With
`--config.rounds=3`, each of three rounds has its metrics and shortlist in a directory of its own.
"""

import os
import shutil
import sys
from typing import Any

import jax.numpy as jnp

from experiments.common import dense
from experiments.common.app import start
from experiments.common.config_tree import as_json
from experiments.common.preparing import Setup, constraints_of, problem_of, set_up
from experiments.common.settings import Settings
import gatprune_jax as gp
from gatprune_jax import reporting
from gatprune_jax.channels import Timing, check_finite
from gatprune_jax.networks import check_saving
from gatprune_jax.pruning import (
  Plan,
  Pruned,
  describe_space,
  keep_table,
  prune_in_rounds,
  prune_problem,
)
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.logger import Run, RunLogger
from gatprune_jax.runs.report import Row, comparison
from gatprune_jax.runtime.processes import is_first
from gatprune_jax.training import steps_per_epoch


def main(settings: Settings, run: Run) -> None:
  """Runs the whole experiment, or prints the result of a workdir that is finished."""
  if runs.inspect(run.workdir, "prune", run.config) is runs.Status.FINISHED:
    methods = runs.read_result(run.workdir, "prune")["methods"]
    reporting.complete_report(run.workdir, as_json(Settings()))
    print(f"{run.workdir} is finished:\n{comparison([Row(**row) for row in methods])}")
    return
  # All checks of the settings and inputs come before anything is written.
  prepared = set_up(settings, settings.limits, run.workdir)
  network = prepared.dense.network
  check_saving(network, jnp.asarray(prepared.data.train.x[:1]))
  variables = dense.restore_dense(settings, network) if settings.dense.checkpoint else None
  check_finite(variables)
  steps_per_epoch(settings.finetune, prepared.data.train)
  with runs.claim(run.workdir, "prune", run.config):
    keep_table(run.workdir, prepared.constraints.deployment)
    pruned = prune_trained(settings, run, prepared, variables)
  print(pruned)
  if is_first():
    print("\n".join(reporting.sentences(reporting.read_run(run.workdir, as_json(Settings())))))
  path = os.path.join(run.workdir, "pruned")
  print(f"The pruned network is in {path}: gatprune_jax.load({path!r}) runs it.")
  print(f"The report is in {os.path.join(run.workdir, reporting.REPORT)}.")


def prune_trained(settings: Settings, run: Run, prepared: Setup, variables: Any) -> Pruned:
  """Prunes the prepared network, and writes all results to the workdir.

  Args:
    settings: settings of the experiment.
    run: the workdir, the config, and whether the process was asked to stop.
    prepared: data, dense network and constraints.
    variables: variables of the trained dense network; None: it is trained first.
  """
  data, workdir = prepared.data, run.workdir
  if is_first():
    print(describe_space(prepared.constraints), file=sys.stderr)
  logger = RunLogger(run, settings.checkpoints, workdir)
  loggers = [logger]
  if variables is None:
    variables = dense.train_dense(settings, prepared.dense, data, logger)
  plan = Plan(settings.search, settings.finetune, settings.finetune_side_by_side, settings.seed)
  if settings.rounds == 1:
    problem = problem_of(settings, prepared, variables)
    pruned = prune_problem(problem, data, plan, logger, workdir)
  else:

    def prune_once(number: int, network: gp.Network, limits: dict[str, float]) -> Pruned:
      folder = os.path.join(workdir, f"round_{number}")
      constraints = constraints_of(settings, network, data, limits, workdir)
      dense_network = prepared.dense._replace(network=network)
      of_round = prepared._replace(dense=dense_network, constraints=constraints)
      problem = problem_of(settings, of_round, network.variables)
      loggers.append(RunLogger(run, settings.checkpoints, folder))
      return prune_problem(problem, data, plan, loggers[-1], folder)

    network = prepared.dense.network.with_variables(variables)
    pruned = prune_in_rounds(network, prepared.constraints, settings.rounds, prune_once, workdir)

  small = pruned.trainable
  compact_accuracy = dense.accuracy(small, small.variables, data.test)
  pruned.save_masks(os.path.join(workdir, "masks.npz"))
  if settings.rounds == 1:  # else it is one of the last round's network
    reporting.write_explanation(os.path.join(workdir, reporting.EXPLANATION), pruned.explanation)
  if is_first():
    path = os.path.join(workdir, "pruned")
    shutil.rmtree(path, ignore_errors=True)  # left by an earlier, unfinished run
    gp.save(path, pruned.trainable, pruned.example)
  whole, agent = pruned.rows[0], pruned.rows[-1]
  runs.write_result(
    workdir,
    {
      "network": prepared.dense.name,
      "dataset": data.name,
      "seed": settings.seed,
      "budgets": settings.limits,
      "dense": {
        "macs": whole.macs,
        "params": whole.params,
        "test_accuracy": whole.test_after,
        **_latency(whole),
      },
      "pruned": {
        "macs": agent.macs,
        "params": agent.params,
        "macs_ratio": agent.macs_ratio,
        "params_ratio": agent.params_ratio,
        "test_accuracy": compact_accuracy,
        "test_accuracy_before_finetune": agent.test_before,
        **_latency(agent),
        "widths": {g.name: int(pruned.mask[g.channels].sum()) for g in pruned.graph.groups},
      },
      "resources": prepared.constraints.statement(pruned.mask),
      "feasible": prepared.constraints.feasible(pruned.mask),
      "search": {
        "evaluations": pruned.search.evaluations,
        "updates": settings.search.updates,
        "seconds": pruned.search.seconds,
      },
      "methods": [row._asdict() for row in pruned.rows],
      "versions": runs.versions(),
    },
  )
  for each in loggers:
    each.forget("finetune")
  reporting.write_report(workdir, as_json(Settings()))
  return pruned


def _latency(row: Row) -> dict[str, dict[str, dict[str, float]]]:
  """Returns the entry of what a network takes on the device at hand, if that was measured."""
  named = {batch: Timing(*timing)._asdict() for batch, timing in row.latency.items()}
  return {"latency": named} if named else {}


if __name__ == "__main__":
  start(main)
