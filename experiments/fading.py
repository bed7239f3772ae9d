"""Measures what gentler starts of fine-tuning gain: `python -m experiments.fading --workdir=DIR`.

The mask of every classical pruner is fine-tuned from four starts, with the same steps: weights as
they are or compensated, and removed channels that vanish at once or fade. A fading channel is
multiplied by a factor that falls linearly from 1 to 0 over the first half of the steps. Seeds,
budgets, criteria and the recipe are those of `experiments.compare`. The command prints the mean
accuracy on the select part and the paired difference to the compensated start. It writes `cells/`,
from which the same command continues, and `result.json`.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import dense
from experiments.common.app import start
from experiments.common.cells import Cell, measure_cells, plan_cells
from experiments.common.settings import Settings
from gatprune_jax.channels import ChannelGraph, masked
from gatprune_jax.evaluation import mean_score
from gatprune_jax.networks import CLASSIFICATION, Network, masked_network
from gatprune_jax.runs.logger import Run
from gatprune_jax.runs.report import markdown_table
from gatprune_jax.training import steps_per_epoch, train

_FADING = 0.5  # share of the steps in which removed channels fade
STARTS = ("as it is", "compensated", "as it is, fading", "compensated, fading")
_REFERENCE = "compensated"


def main(settings: Settings, run: Run) -> None:
  """Fine-tunes the masks that are missing, and prints the table."""
  dense.refuse_checkpoint(settings)
  # Bad settings are refused before a file is written.
  compare = settings.compare
  plans = plan_cells(settings, compare.seeds, compare.budgets, compare.limits)
  print(fading_table(measure_cells("fading", plans, run, measure)))


def measure(cell: Cell) -> dict[str, Any]:
  """Fine-tunes the classical masks of one seed and budget from every start.

  Returns:
    `budget`, and `accuracies`: {start: accuracy on the select part of each pruner's mask}.
  """
  settings, problem, data, budget = cell.settings, cell.problem, cell.data, cell.budget
  recipe = settings.finetune
  network, graph = problem.network, problem.constraints.graph
  evaluator = problem.evaluator(settings.search)
  key = jax.random.fold_in(jax.random.key(settings.seed), 1)
  num_steps = recipe.epochs * steps_per_epoch(recipe, data.train)

  def accuracy(begin: str, name: str, mask: np.ndarray) -> float:
    own = network
    if "compensated" in begin:
      own = network.with_variables(jax.tree.map(jnp.asarray, evaluator.compensated(mask)))
    if "fading" in begin:
      trained = fading_network(graph, own, mask, _FADING * num_steps)
    else:
      trained = masked_network(graph, own, mask)
    phase = f"{begin} {name} {budget}".replace(",", "")
    with cell.logger.loop(phase, phase, recipe.epochs) as loop:
      final = train(
        trained, CLASSIFICATION, data.train, recipe, key,
        lambda epoch, values, _: loop.record(epoch, values), network,
      )  # fmt: skip
    return mean_score(trained, CLASSIFICATION, final, data.select)

  def accuracies(begin: str) -> list[float]:
    return [accuracy(begin, pruner.name, pruner.mask) for pruner in problem.pruners]

  found = {begin: cell.kept(begin, lambda b=begin: accuracies(b)) for begin in STARTS}
  return {"budget": budget, "accuracies": found}


def fading_network(
  graph: ChannelGraph, network: Network, mask: np.ndarray, num_steps: float
) -> Network:
  """Returns the network with channels that fade while it trains, and are masked in eval mode.

  The factor of the removed channels is a variable of the network that does not train; each batch in
  train mode lowers it by `1 / num_steps`, down to 0.

  Args:
    graph: the network's channels.
    network: the dense network.
    mask: `[N]`, 1 = keep.
    num_steps: number of batches in which the factor falls from 1 to 0.
  """
  kept_channels = jnp.asarray(mask, float)

  def train_fn(variables, x):
    own, factor = variables["network"], variables["factor"]
    soft = kept_channels + (1 - kept_channels) * factor
    under_mask = dataclasses.replace(
      network, train_fn=lambda own, x: masked(graph, network.train_fn)(own, soft, x)
    )
    outputs, state = under_mask.forward_train(own, x)
    updated = network.merge(network.split(own)[0], state)
    return outputs, {"network": updated, "factor": jnp.maximum(factor - 1 / num_steps, 0.0)}

  flags = jax.tree.unflatten(jax.tree.structure(network.variables), network.trains)
  return Network(
    lambda variables, x: masked(graph, network.eval_fn)(variables["network"], mask, x),
    train_fn,
    {"network": network.variables, "factor": jnp.ones(())},
    {"network": flags, "factor": False},
  )


def fading_table(cells: Sequence[dict[str, Any]]) -> str:
  """Returns a markdown table by budget and start, means and deviations over masks and seeds."""
  body = []
  for budget in sorted({cell["budget"] for cell in cells}, reverse=True):
    here = [cell["accuracies"] for cell in cells if cell["budget"] == budget]
    reference = 100 * np.concatenate([cell[_REFERENCE] for cell in here])
    for begin in STARTS:
      values = 100 * np.concatenate([cell[begin] for cell in here])
      gain = values - reference
      error = gain.std(ddof=1) / np.sqrt(len(gain))
      body.append(
        [begin, budget, f"{values.mean():.2f}", f"{gain.mean():+.2f} ± {error:.2f}", len(gain)]
      )
  headers = ("start", "MACs at most", "select", "gain ± standard error", "trainings")
  return markdown_table(headers, body)


if __name__ == "__main__":
  start(main)
