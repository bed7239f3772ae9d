"""Pruning from end to end.

A trained network, data and budgets go in. A pruned and fine-tuned network comes out, with a table
that compares the pruning methods.
"""

from gatprune_jax.pruning.api import default_config, prune
from gatprune_jax.pruning.explaining import explain_mask
from gatprune_jax.pruning.finetuning import (
  Finetuned,
  finetune,
  lines_of_epochs,
  scores_before,
)
from gatprune_jax.pruning.judging import Choice, Judgement, judge
from gatprune_jax.pruning.latency import keep_table, with_table
from gatprune_jax.pruning.pipeline import (
  Plan,
  classical_proposals,
  find,
  prune_problem,
)
from gatprune_jax.pruning.proposals import Proposal, as_proposal, load_proposals, save_proposals
from gatprune_jax.pruning.pruned import Pruned
from gatprune_jax.pruning.rounds import (
  budgets_of_rounds,
  check_rounds,
  first_costs,
  prune_in_rounds,
)
from gatprune_jax.pruning.space import describe_space

__all__ = [
  "Choice",
  "Finetuned",
  "Judgement",
  "Plan",
  "Proposal",
  "Pruned",
  "as_proposal",
  "budgets_of_rounds",
  "check_rounds",
  "classical_proposals",
  "default_config",
  "describe_space",
  "explain_mask",
  "find",
  "finetune",
  "first_costs",
  "judge",
  "keep_table",
  "lines_of_epochs",
  "load_proposals",
  "prune",
  "prune_in_rounds",
  "prune_problem",
  "save_proposals",
  "scores_before",
  "with_table",
]
