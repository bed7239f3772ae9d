"""Measures what scores say about the accuracy after fine-tuning: `python -m experiments.fidelity`.

For each seed and budget, masks are drawn with random widths of the groups, and inside of them with
the order of a classical pruner, which is drawn at random too. Every mask is fine-tuned twice, with
two seeds of data order and augmentation. It is scored at several levels: with weights as they are
or compensated, and after different numbers of gradient steps. The command prints, for every level,
Kendall's tau between score and accuracy after fine-tuning, the regret of the best five, and the
seconds that a mask takes. Tau between both trainings is the ceiling of what a score can reach.

The accuracies are those on the select part. The larger it is, the less noise they have: a command
for CIFAR-10 might add `--config.images.select=10000`. Writes a folder for each seed and
budget in `cells/`, from which the same command continues, and `result.json`.
"""

from collections.abc import Sequence
import dataclasses
import time
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.stats import kendalltau

from experiments.common import dense
from experiments.common.app import start
from experiments.common.cells import Cell, measure_cells, plan_cells
from experiments.common.settings import Settings
from gatprune_jax.channels import ChannelGraph
from gatprune_jax.criteria import allocate, order_by_ratios
from gatprune_jax.pruning import finetune
from gatprune_jax.runs.logger import Run
from gatprune_jax.runs.report import markdown_table
from gatprune_jax.search import PruningProblem, Scorer, SearchConfig

_BEST = 5  # masks of the regret
_SMALLEST = 0.1  # ratios of groups are log-uniform between this and 1
_TOGETHER = 4  # masks that are fine-tuned side by side, on average


def main(settings: Settings, run: Run) -> None:
  """Measures what is missing of every cell, and prints the table of all cells."""
  dense.refuse_checkpoint(settings)
  # Bad settings are refused before a file is written.
  plans = plan_cells(settings, settings.fidelity.seeds, settings.fidelity.budgets)
  print(fidelity_table(measure_cells("fidelity", plans, run, measure)))


def measure(cell: Cell) -> dict[str, Any]:
  """Scores and fine-tunes the masks of one seed and budget, where this is not done yet.

  Returns:
    `seed` and `budget`; `levels`: for each level its name, the scores and accuracies `[masks]`, and
    the seconds that a mask took; `finals`: the accuracies `[2, masks]` on the select part after two
    trainings.
  """
  settings, problem = cell.settings, cell.problem
  masks = draw_masks(problem, settings.fidelity.masks, settings.seed)
  parts = alike(problem.constraints.graph, masks)

  def trained(repetition: int, phase: str) -> list[float]:
    outcomes = np.zeros(len(masks))
    for index, part in enumerate(parts, start=1):
      tuned = finetune(
        problem, masks[part], settings.finetune, settings.search,
        seed=1000 * settings.seed + repetition, side_by_side=settings.finetune_side_by_side,
        logger=cell.logger, phase=f"{phase}/{index}",
      )  # fmt: skip
      outcomes[part] = tuned.scores(cell.data.select)
    return outcomes.tolist()

  def outcomes_of(repetition: int) -> list[float]:
    phase = f"fidelity {cell.budget} {repetition}"
    found = cell.kept(f"training {repetition}", lambda: trained(repetition, phase))
    cell.logger.forget(phase)
    return found

  return {
    "seed": settings.seed,
    "budget": cell.budget,
    "levels": [
      cell.kept(config.level, lambda c=config: scored(problem, masks, c))
      for config in levels(settings.search, settings.fidelity.steps)
    ],
    "finals": [outcomes_of(repetition) for repetition in range(2)],
  }


def scored(problem: PruningProblem, masks: np.ndarray, config: SearchConfig) -> dict[str, Any]:
  """Returns the scores of masks `[M, N]` at one level, and the seconds that a mask took."""
  scorer = Scorer(problem, config)
  scorer(masks[:1])  # compiles the program
  begin = time.monotonic()
  scores, accuracies = scorer(masks)
  seconds = (time.monotonic() - begin) / (len(masks) - 1)
  columns = {"scores": scores.tolist(), "accuracies": accuracies.tolist()}
  return {"level": config.level, **columns, "seconds": seconds}


def draw_masks(problem: PruningProblem, num: int, seed: int) -> np.ndarray:
  """Draws masks within the budgets: widths log-uniform by group, ordered by a classical pruner.

  Args:
    problem: the network, its budgets and its classical pruners.
    num: number of masks.
    seed: seed of the draws.

  Returns:
    Masks, bool `[num, N]`.
  """
  rng, graph = np.random.default_rng(seed), problem.constraints.graph
  masks = []
  for _ in range(num):
    pruner = problem.pruners[rng.integers(len(problem.pruners))]
    ratios = _SMALLEST ** rng.random(len(graph.groups))
    masks.append(allocate(problem.constraints, order_by_ratios(graph, pruner.order, ratios)))
  return np.stack(masks)


def alike(graph: ChannelGraph, masks: np.ndarray) -> list[np.ndarray]:
  """Divides masks into parts that keep similar numbers of channels in every group.

  Networks that are fine-tuned side by side compute as many channels as the widest of them keeps.
  Random widths have hardly a group in which none is wide, so that all masks together would compute
  nearly the dense network. The parts are clusters by Ward's method (1963), where the distance of
  two masks is that of the logarithms of their widths.

  Args:
    graph: the network's channels.
    masks: bool `[M, N]`.

  Returns:
    The indices of the masks of each part.
  """
  widths = np.stack([masks[:, group.channels].sum(1) for group in graph.groups], axis=1)
  part_of = fcluster(linkage(np.log1p(widths), "ward"), -(-len(masks) // _TOGETHER), "maxclust")
  return [np.flatnonzero(part_of == part) for part in np.unique(part_of)]


def levels(config: SearchConfig, steps: Sequence[int]) -> list[SearchConfig]:
  """Returns the settings of a search at every level: without and with compensation, by steps."""
  adapted = lambda k: dataclasses.replace(config.adaptation, steps=k)
  return [
    dataclasses.replace(config, compensation_ridge=ridge, adaptation=adapted(k))
    for ridge in (0.0, config.compensation_ridge)
    for k in steps
  ]


def agreement(scores: Sequence[float], finals: np.ndarray) -> float:
  """Returns Kendall's tau between scores `[M]` and accuracies `[T, M]`, mean over T trainings."""
  return float(np.mean([kendalltau(scores, final).statistic for final in finals]))


def regret(scores: Sequence[float], finals: np.ndarray) -> float:
  """Returns how far the best five masks by score end, on average, below the best five by outcome.

  Args:
    scores: `[M]`.
    finals: accuracies after the trainings, `[T, M]`; their mean over trainings is the outcome.
  """
  outcome = finals.mean(0)
  chosen = outcome[np.argsort(-np.asarray(scores), kind="stable")[:_BEST]]
  return float(np.sort(outcome)[-_BEST:].mean() - chosen.mean())


def fidelity_table(cells: Sequence[dict[str, Any]]) -> str:
  """Returns a markdown table of every level's agreement, mean ± deviation over seeds, by budget."""
  body = []
  for budget in sorted({cell["budget"] for cell in cells}, reverse=True):
    here = [cell for cell in cells if cell["budget"] == budget]
    finals = [np.array(cell["finals"]) for cell in here]
    ceiling = [kendalltau(*final).statistic for final in finals]
    body.append([budget, "a second training", _spread(ceiling), "", "", ""])
    for index, level in enumerate(here[0]["levels"]):
      rows = [cell["levels"][index] for cell in here]
      pairs = list(zip(rows, finals, strict=True))
      body.append(
        [
          budget,
          level["level"],
          _spread([agreement(row["scores"], final) for row, final in pairs]),
          _spread([agreement(row["accuracies"], final) for row, final in pairs]),
          _spread([100 * regret(row["scores"], final) for row, final in pairs]),
          f"{np.mean([row['seconds'] for row in rows]):.2f}",
        ]
      )
  headers = (
    "MACs at most", "level", "tau", "tau of accuracy alone", "regret of the best five, points",
    "seconds a mask",
  )  # fmt: skip
  return markdown_table(headers, body)


def _spread(values: Sequence[float]) -> str:
  deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
  return f"{np.mean(values):.2f} ± {deviation:.2f}"


if __name__ == "__main__":
  start(main)
