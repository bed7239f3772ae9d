"""From settings, data and a dense network to the task that all searches get."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.dense import Network
from experiments.settings import Settings
from gatprune_jax.channels import Budgets, ChannelGraph
from gatprune_jax.criteria import Evidence, classical_pruners, score_channels
from gatprune_jax.data import Dataset, Split
from gatprune_jax.search import Task


def make_task(
  settings: Settings,
  data: Dataset,
  network: Network,
  graph: ChannelGraph,
  variables: Any,
  reward: Split,
  arena: Split,
  budgets: Budgets,
  floors: Any,
) -> Task:
  """Scores the channels by every criterion and brings every classical pruner to the budgets."""
  evidence = Evidence(
    graph, variables, network.eval_fn, jnp.asarray(data.train.x), jnp.asarray(data.train.y),
    jax.random.key(settings.seed),
  )  # fmt: skip
  scores = {name: score_channels(name, evidence) for name in settings.criteria}
  pruners = classical_pruners(graph, budgets, floors, scores)
  saliency = {name: values for name, values in scores.items() if name != "random"}
  return Task(
    graph, network.eval_fn, network.train_fn, variables, data.train, reward, arena, budgets,
    floors, pruners, saliency,
  )  # fmt: skip
