"""Measures how well one batch of masks estimates the policy gradient.

`python -m experiments.gradient --workdir=DIR --config.budgets.macs=0.2`

The policy is the one that the agent starts from: warm-started logits at the budget. The gradient of
the expected score with respect to the logits is estimated from batches of as many masks as an
update of the agent samples, with and without a critic that was fitted to other masks of the same
policy. Each estimate is compared, by cosine, with the leave-one-out estimate from 2,048 further
masks. Prints the mean and standard deviation of the cosine over batches, and writes `result.json`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import dense
from experiments.common.app import start
from experiments.common.preparing import Setup, problem_of, set_up
from experiments.common.settings import Settings
from gatprune_jax import InputError
from gatprune_jax.agent import (
  Surrogate,
  counterfactual_advantages,
  fit_surrogate,
  observe,
)
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.logger import Run, RunLogger
from gatprune_jax.runs.report import markdown_table
from gatprune_jax.search import (
  Scorer,
  best_classical,
  make_decisions,
  make_environment,
  warm_logits,
)

_FRESH = 2048  # masks of the reference estimate
_EARLIER = (256, 512, 1024)  # numbers of masks that a critic is fitted to
_BATCHES = 16
_PHASE = "gradient"  # of the metrics and checkpoints


def main(settings: Settings, run: Run) -> None:
  """Measures the cosines, or reads those of a finished workdir, and prints them."""
  dense.refuse_checkpoint(settings)
  if "macs" not in settings.limits:
    raise InputError("budgets has no macs, at which the first policy is: add budgets.macs")
  if runs.inspect(run.workdir, "gradient", run.config) is runs.Status.FINISHED:
    cosines = runs.read_result(run.workdir, "gradient")["cosines"]
  else:
    prepared = set_up(settings, {"macs": settings.limits["macs"]})
    with runs.claim(run.workdir, "gradient", run.config):
      logger = RunLogger(run, settings.checkpoints, run.workdir)
      cosines = measure(settings, prepared, logger)
      runs.write_result(run.workdir, {"cosines": cosines, "versions": runs.versions()})
      logger.forget(_PHASE)
  print(cosine_table(settings, cosines))


def measure(settings: Settings, prepared: Setup, logger: RunLogger) -> dict[str, list[float]]:
  """Computes the cosine between every batch's estimate and the reference, for each estimator.

  Args:
    settings: settings of the experiment.
    prepared: data, dense network and constraints.
    logger: logs and saves the training of the dense network, and the scores.

  Returns:
    {name of the estimator: the cosines of its batches}.
  """
  graph, budgets = prepared.constraints.graph, prepared.constraints.budgets
  variables = dense.train_dense(settings, prepared.dense, prepared.data, logger)
  problem = problem_of(settings, prepared, variables)
  scorer = Scorer(problem, settings.search)
  best = best_classical(problem, scorer)
  decisions = make_decisions(graph, settings.search.schedule)
  environment = make_environment(prepared.constraints, decisions, -best.order)
  probabilities = jax.nn.sigmoid(warm_logits(best.order, settings.search.warm_start, environment))
  observation = observe(
    graph, variables, problem.saliency, budgets, settings.search.policy.edge_norms
  )

  rng = np.random.default_rng(settings.seed)
  batch = settings.search.samples
  num = _FRESH + max(_EARLIER) + _BATCHES * batch
  masks = rng.random((num, graph.num_channels)) < np.asarray(probabilities)
  parts = np.split(masks, range(batch, num, batch))
  masks = jnp.asarray(masks, jnp.float32)
  scores = jnp.asarray(score_in_turn(scorer, parts, logger))

  nothing = Surrogate(jnp.zeros_like(probabilities), probabilities, jnp.zeros(()))

  @jax.jit
  def estimate(masks, scores, surrogate, alpha):
    p = jnp.broadcast_to(probabilities, masks.shape)
    advantage = counterfactual_advantages(scores, masks, p, surrogate, alpha)
    return (advantage * (masks - p)).mean(0)

  reference = estimate(masks[:_FRESH], scores[:_FRESH], nothing, 1.0)
  cosine = lambda a, b: float(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b))
  estimators = {"no critic": (nothing, 1.0)}
  for earlier in _EARLIER:
    rows = slice(_FRESH, _FRESH + earlier)
    surrogate = fit_surrogate(
      masks[rows], scores[rows], jnp.ones(earlier, bool), observation.channels,
      settings.search.critic.prior,
    )  # fmt: skip
    surrogate = Surrogate(surrogate.weights, probabilities, surrogate(probabilities))
    for alpha in (1.0, 0.5, 0.0):
      estimators[f"critic on {earlier} masks, residual weight {alpha:g}"] = (surrogate, alpha)
  first = _FRESH + max(_EARLIER)
  return {
    name: [
      cosine(estimate(masks[i : i + batch], scores[i : i + batch], surrogate, alpha), reference)
      for i in range(first, num, batch)
    ]
    for name, (surrogate, alpha) in estimators.items()
  }


def score_in_turn(scorer: Scorer, parts: Sequence[np.ndarray], logger: RunLogger) -> np.ndarray:
  """Returns the scores of all masks, float32; goes on after the parts that are scored and saved.

  Args:
    scorer: scores the masks.
    parts: the masks, `[C, N]` each.
    logger: logs each part's mean score, and saves the scores.

  Raises:
    Preempted: after a part, if the process was asked to stop; the scores are saved.
  """
  ends = np.cumsum([len(some) for some in parts])
  nothing = np.zeros(ends[-1], np.float32)
  with logger.loop(_PHASE, "batch of masks", len(parts)) as loop:
    checkpointer = loop.checkpointer(logger.every.updates, lambda step: step)
    done, saved = checkpointer.restore(nothing) or (0, nothing)
    scores = np.array(saved)
    for number, (end, some) in enumerate(zip(ends, parts, strict=True), start=1):
      if number > done:
        scores[end - len(some) : end] = scorer(some)[0]
        loop.record(number, {"score": scores[end - len(some) : end].mean()})
        checkpointer.maybe_save(number, lambda: scores)
  return scores


def cosine_table(settings: Settings, cosines: dict[str, list[float]]) -> str:
  """Returns a markdown table of each estimator's mean and standard deviation over batches."""
  body = [
    [name, f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"]
    for name, values in cosines.items()
  ]
  return markdown_table((f"estimate from {settings.search.samples} masks", "cosine"), body)


if __name__ == "__main__":
  start(main)
