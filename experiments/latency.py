"""Prunes a network to a share of its measured latency, and measures what that is worth.

`python -m experiments.latency --workdir=DIR --config=experiments/configs/cifar10_latency.py`

1. Measures the latency table of the network on this device, or takes that of `latency.table`.
2. Times compact networks with 40 random masks, of widths on which searches land, and prints
   Kendall's rank correlation with the latency that the table predicts, and with the MACs.
3. Lets the agent search within the budget for latency, and brings every classical pruner to the
   same latency. Then the agent searches within budgets of MACs instead, each corrected by those
   before it, until a compact network takes as long within 2 %, at most eight times.
4. Times the compact networks of all masks afresh, in turn with the dense one, three times; on a CPU
   each time is a process of its own.

Prints one row for each network: the latency that the table predicts and the measured ones, as
shares of the dense network's, and its accuracy before any gradient step. Writes `result.json`,
`latency_table.json`, `masks.npz` and `metrics.jsonl`.
"""

from collections.abc import Mapping
import itertools
import os
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from experiments.common import dense
from experiments.common.app import start
from experiments.common.preparing import Setup, constraints_of, problem_of, set_up
from experiments.common.settings import Settings
import gatprune_jax as gp
from gatprune_jax.channels import ChannelGraph, Timing, time_masks, uneven_mask
from gatprune_jax.pruning import Plan, classical_proposals, find, keep_table, scores_before
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.logger import Run, RunLogger
from gatprune_jax.runs.report import markdown_table
from gatprune_jax.runtime.processes import is_first
from gatprune_jax.runtime.whole_files import whole_file

_MASKS = 40  # random masks of which latencies are predicted and measured
_RUNS = 3  # how often all networks are timed afresh
_ATTEMPTS = 8  # searches within a budget of MACs
_EQUAL = 0.02  # relative difference of measured latencies that count as equal
_DENSE, _AGENT = "dense", "agent"


def main(settings: Settings, run: Run) -> None:
  """Measures, or reads the result of a finished workdir, and prints it."""
  if "latency" not in settings.limits:
    raise gp.InputError("budgets has no latency, which is measured here: add budgets.latency")
  if runs.inspect(run.workdir, "latency", run.config) is runs.Status.FINISHED:
    result = runs.read_result(run.workdir, "latency")
  else:
    prepared = set_up(settings, settings.limits, run.workdir)
    with runs.claim(run.workdir, "latency", run.config):
      keep_table(run.workdir, prepared.constraints.deployment)
      result = measure(settings, prepared, run)
      runs.write_result(run.workdir, result)
  print(told(result))


def measure(settings: Settings, prepared: Setup, run: Run) -> dict[str, Any]:
  """Runs all steps, and returns what `result.json` holds."""
  variables = trained(settings, prepared, run)
  network = prepared.dense.network.with_variables(variables)
  correlation = rank_correlation(prepared, network)
  masks, accuracies = search(settings, prepared, variables, run)
  if is_first():
    with whole_file(os.path.join(run.workdir, "masks.npz")) as file:
      np.savez(file, **masks)
  graph, table = prepared.constraints.graph, prepared.constraints.deployment.latency_table
  timed = [latencies_of(prepared, network, masks) for _ in range(_RUNS)]
  predicted = {name: gp.latency(graph, mask, table) for name, mask in masks.items()}
  rows = [
    {
      "method": name,
      "macs_ratio": gp.macs(graph, mask) / gp.macs(graph, masks[_DENSE]),
      "predicted_ratio": predicted[name] / predicted[_DENSE],
      "measured": [each[name]._asdict() for each in timed],
      "accuracy_before_finetune": accuracies[name],
    }
    for name, mask in masks.items()
  ]
  return {
    "network": prepared.dense.name,
    "budgets": settings.limits,
    "batch": table.batch,
    "device": table.device,
    "correlation": correlation,
    "rows": rows,
    "versions": runs.versions(),
  }


def trained(settings: Settings, prepared: Setup, run: Run) -> Any:
  """Returns the variables of the dense network, which is restored or trained."""
  if settings.dense.checkpoint:
    return dense.restore_dense(settings, prepared.dense.network)
  logger = RunLogger(run, settings.checkpoints, run.workdir)
  return dense.train_dense(settings, prepared.dense, prepared.data, logger)


def rank_correlation(prepared: Setup, network: gp.Network) -> dict[str, float]:
  """Returns Kendall's tau of measured latencies with predicted ones and with MACs."""
  graph, table = prepared.constraints.graph, prepared.constraints.deployment.latency_table
  masks = random_masks(graph, table.block)
  measured = latencies_of(prepared, network, dict(enumerate(masks)))
  seconds = [timing.ratio for timing in measured.values()]
  tau = lambda cost: float(kendalltau([cost(mask) for mask in masks], seconds).statistic)
  return {
    "masks": len(masks),
    "latency": tau(lambda mask: gp.latency(graph, mask, table)),
    "macs": tau(lambda mask: gp.macs(graph, mask)),
  }


def random_masks(graph: ChannelGraph, block: int) -> list[np.ndarray]:
  """Returns masks that keep from a little to most of a network, unevenly over its groups.

  Args:
    graph: the network's channels.
    block: groups keep multiples of it, as the masks of a search do, or all their channels.
  """
  rng = np.random.default_rng(1)
  shares = rng.uniform(0.05, 0.95, _MASKS)
  return [uneven_mask(graph, rng, share, block) for share in shares]


def search(
  settings: Settings, prepared: Setup, variables: Any, run: Run
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
  """Finds the masks of all methods, and returns them with their accuracies on the select part."""
  problem = problem_of(settings, prepared, variables)
  plan = Plan(settings.search, settings.finetune, settings.finetune_side_by_side, settings.seed)
  logger = lambda folder: RunLogger(run, settings.checkpoints, os.path.join(run.workdir, folder))
  graph = prepared.constraints.graph
  masks = {_DENSE: np.ones(graph.num_channels, bool)}
  masks |= {proposal.method: proposal.masks[0] for proposal in classical_proposals(problem)}
  masks[_AGENT] = find(problem, plan, logger("latency")).masks[0]
  network = prepared.dense.network.with_variables(variables)
  share_of = lambda mask: gp.macs(graph, mask) / gp.macs(graph, masks[_DENSE])
  least, share = share_of(prepared.constraints.smallest_mask()), share_of(masks[_AGENT])
  tried: dict[float, float] = {}  # {budget of MACs: seconds of its mask / seconds of the agent's}
  # A budget comes up again where the smallest or the largest possible one was not enough.
  while len(tried) < _ATTEMPTS and share not in tried:
    constraints = constraints_of(settings, network, prepared.data, {"macs": share})
    within_macs = problem_of(settings, prepared._replace(constraints=constraints), variables)
    mask = find(within_macs, plan, logger(f"macs {len(tried) + 1}")).masks[0]
    masks[f"{_AGENT}, {share:.4g} of the MACs"] = mask
    pair = {_AGENT: masks[_AGENT], "macs": mask}
    tried[share] = latencies_of(prepared, network, pair)["macs"].ratio
    if abs(tried[share] - 1) <= _EQUAL:
      break
    share = max(least, next_share(tried))
  before = scores_before(problem, np.stack(list(masks.values())), settings.search)
  accuracies = before(prepared.data.select).tolist()
  return masks, dict(zip(masks, accuracies, strict=True))


def next_share(tried: Mapping[float, float]) -> float:
  """Returns the budget of MACs whose mask should take as long as the agent's mask for latency.

  It lies on the line through two neighbouring budgets: the mask of one is slower, that of the other
  one faster. There can be several such pairs, because a mask of more MACs may be faster; then the
  pair is taken whose latencies are closest to the agent's. Until there is a pair, the budget is
  half of the smallest one tried, or twice the largest.

  Args:
    tried: {budget of MACs, a share: seconds of its mask / seconds of the agent's}.
  """
  neighbours = itertools.pairwise(sorted(tried))
  pairs = [(low, high) for low, high in neighbours if (tried[low] > 1) != (tried[high] > 1)]
  if not pairs:
    return min(tried) / 2 if min(tried.values()) > 1 else min(1.0, 2 * max(tried))
  low, high = min(pairs, key=lambda pair: sum(abs(tried[end] - 1) for end in pair))
  return low + (1 - tried[low]) / (tried[high] - tried[low]) * (high - low)


def latencies_of(
  prepared: Setup, network: gp.Network, masks: Mapping[Any, np.ndarray]
) -> dict[Any, Timing]:
  """Times the compact networks of all masks in turn; ratios are those to the first one."""
  graph, batch = prepared.constraints.graph, prepared.constraints.deployment.batch
  x = prepared.data.train.x[:1]
  return time_masks(graph, network.eval_fn, network.variables, masks, x, batch)


def told(result: Mapping[str, Any]) -> str:
  """Returns the result in words and as a table."""
  tau = result["correlation"]
  body = []
  for row in result["rows"]:
    timings = [Timing(**each) for each in row["measured"]]
    body.append(
      [
        row["method"],
        f"{row['macs_ratio']:.3f}",
        f"{row['predicted_ratio']:.3f}",
        *(f"{timing.ratio:.3f} ± {timing.ratio_spread:.3f}" for timing in timings),
        f"{1e3 * np.median([timing.seconds for timing in timings]):.3g}",
        f"{100 * row['accuracy_before_finetune']:.1f}",
      ]
    )
  measured = [f"measured {number}" for number in range(1, len(result["rows"][0]["measured"]) + 1)]
  headers = ["method", "MACs", "predicted", *measured, "ms", "accuracy before, select"]
  return (
    f"{result['network']} at a batch of {result['batch']} on {result['device']}; Kendall's tau "
    f"over {tau['masks']} random masks: {tau['latency']:.3f} between predicted and measured "
    f"latency, {tau['macs']:.3f} between MACs and measured latency\n\n"
    f"{markdown_table(headers, body)}"
  )


if __name__ == "__main__":
  start(main)
