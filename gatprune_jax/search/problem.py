"""The pruning problem: network, constraints, data and classical masks, the same for all methods."""

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels import Constraints
from gatprune_jax.criteria import Classical, Evidence, classical_pruners, score_channels
from gatprune_jax.data import Dataset, Split, cut
from gatprune_jax.errors import InputError
from gatprune_jax.evaluation import (
  Evaluator,
  check_calibration,
)
from gatprune_jax.networks import CLASSIFICATION, Network, Task
from gatprune_jax.runtime.processes import from_first
from gatprune_jax.search.search_config import SearchConfig

# These are the default saliency criteria. Their scores give the classical pruners, which serve as
# baselines, and features of the channels for the agent.
DEFAULT_CRITERIA = ("random", "l1", "l2", "bn_scale", "fpgm", "taylor")
_CONTROL = "random"  # a baseline, but not a feature
_EVIDENCE = 4096  # most training examples that criteria use; bounds the time of "taylor"


@dataclasses.dataclass(frozen=True, eq=False)
class PruningProblem:
  """Network to prune, with its task, constraints and data, and its classical pruners.

  Attributes:
    network: the trained network; it is not changed.
    task: the network's loss and score.
    constraints: the graph of the network's channels, the budgets and the floors.
    train: training examples, for the batch-norm statistics and the adaptation steps of each mask.
    reward: examples on which every mask is scored; the weights were not trained on them.
    confirmation: further examples on which a new incumbent must win as well; the weights were not
      trained on them either.
    pruners: classical pruners with masks within the budgets, at least one.
    saliency: {criterion: scores `[N]`}, features of the agent's channels.
  """

  network: Network
  task: Task
  constraints: Constraints
  train: Split
  reward: Split
  confirmation: Split
  pruners: Sequence[Classical]
  saliency: dict[str, np.ndarray]
  # This dict holds evaluators by their settings. `dataclasses.replace` gives the new problem an
  # empty dict, because the field is not an argument of `__init__`.
  _evaluators: dict[tuple, Evaluator] = dataclasses.field(
    default_factory=dict, init=False, repr=False
  )

  def evaluator(self, config: SearchConfig) -> Evaluator:
    """Returns the evaluator for these settings, which is built and compiled only once."""
    settings = {
      name: getattr(config, name)
      for name in (
        "compensation_ridge", "adaptation", "calibration_images", "calibration_batch", "samples",
        "chunk",
      )
    }  # fmt: skip
    key = tuple(settings.values())
    if key not in self._evaluators:
      self._evaluators[key] = Evaluator(
        self.constraints.graph, self.network, self.task, self.train,
        num_images=self.reward.num, **settings,
      )  # fmt: skip
    return self._evaluators[key]


def make_problem(
  network: Network,
  constraints: Constraints,
  data: Dataset,
  *,
  task: Task = CLASSIFICATION,
  config: SearchConfig | None = None,
  criteria: Sequence[str] = DEFAULT_CRITERIA,
  seed: int = 0,
) -> PruningProblem:
  """Scores the channels by every criterion and brings every classical pruner to the budgets.

  Args:
    network: the trained network.
    constraints: from `make_constraints`, for the network's graph.
    data: the data set, of which the train and reward splits are used.
    task: the network's loss and score.
    config: settings by which the reward split is cut; None means the defaults of a search.
    criteria: keys of `CRITERIA`.
    seed: seed of the cut and of the "random" criterion.

  Raises:
    InputError: if a criterion is unknown or does not apply to the network, or there are too few
      examples.
  """
  reward, confirmation = hold_out_confirmation(config or SearchConfig(), data.reward, seed)
  examples = data.train.first(_EVIDENCE)
  evidence = Evidence(
    constraints.graph, network, task, jnp.asarray(examples.x),
    jax.tree.map(jnp.asarray, examples.y), jax.random.key(seed),
  )  # fmt: skip
  scores = from_first(lambda: {name: score_channels(name, evidence) for name in criteria})
  pruners = classical_pruners(constraints, scores)
  saliency = {name: values for name, values in scores.items() if name != _CONTROL}
  return PruningProblem(
    network, task, constraints, data.train, reward, confirmation, pruners, saliency
  )


def hold_out_confirmation(config: SearchConfig, reward: Split, seed: int) -> tuple[Split, Split]:
  """Cuts the reward split in two: examples that score masks, and the confirmation split.

  Args:
    config: settings, of which `confirmation_share` is read.
    reward: the reward split.
    seed: seed of the cut.

  Raises:
    InputError: if no example is left to score masks, or fewer than two are in the confirmation
      split.
  """
  confirmation, scored = cut(reward, round(config.confirmation_share * reward.num), seed)
  if confirmation.num < 2:  # one example gives no standard error
    raise InputError(
      f"confirmation_share {config.confirmation_share} of {reward.num} reward images is one image: "
      "make it so large that there are two at least, or give more reward images"
    )
  return scored, confirmation


def check_search(config: SearchConfig, data: Dataset, seed: int) -> None:
  """Checks, before a network is needed, that there are enough examples for a search.

  Args:
    config: settings of the search.
    data: the data set.
    seed: seed of the cut of the reward split.

  Raises:
    InputError: if there are too few training examples for the batch-norm statistics, or too few
      reward examples for the confirmation split.
  """
  check_calibration(config.calibration_images, data.train)
  hold_out_confirmation(config, data.reward, seed)
