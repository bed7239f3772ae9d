"""From a trained network, data and budgets to a pruned network and its table."""

from gatprune_jax.pruning.api import prune
from gatprune_jax.pruning.finetuning import (
  Finetuned,
  finetune,
  lines_of_epochs,
  scores_before,
)
from gatprune_jax.pruning.judging import Choice, Judgement, judge
from gatprune_jax.pruning.pipeline import (
  Plan,
  classical_found,
  prune_problem,
)
from gatprune_jax.pruning.proposals import Found, as_found, load_found, save_found
from gatprune_jax.pruning.pruned import Pruned
from gatprune_jax.pruning.space import describe_space

__all__ = [
  "Choice",
  "Finetuned",
  "Found",
  "Judgement",
  "Plan",
  "Pruned",
  "as_found",
  "classical_found",
  "describe_space",
  "finetune",
  "judge",
  "lines_of_epochs",
  "load_found",
  "prune",
  "prune_problem",
  "save_found",
  "scores_before",
]
