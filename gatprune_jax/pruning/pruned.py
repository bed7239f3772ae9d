"""The outcome of pruning: the small network, and its comparison with the other methods."""

from collections.abc import Sequence
import dataclasses
import os
from typing import Any

import jax
import numpy as np

from gatprune_jax.channels import ChannelGraph, Compact
from gatprune_jax.errors import InputError
from gatprune_jax.networks import Network, save
from gatprune_jax.pruning.proposals import Proposal
from gatprune_jax.reporting import Explanation
from gatprune_jax.runs.report import Row, comparison
from gatprune_jax.runs.workdir import write_json
from gatprune_jax.runtime.processes import is_first
from gatprune_jax.runtime.whole_files import whole_directory, whole_file

_TABLE, _ROWS, _MASKS, _NETWORK = "table.md", "rows.json", "masks.npz", "network"


@dataclasses.dataclass(frozen=True, eq=False)
class Pruned:
  """A pruned and fine-tuned network, and the methods that it was compared with.

  Attributes:
    network: the small network, `network.apply(network.variables, x)`, in eval mode.
    module: the small network in its own framework: an NNX module, an Equinox module, or a pair of
      Equinox module and state. None if the network has no such module, or if the module's code
      works only at the dense network's shapes.
    trainable: the small network with its train function, for further training.
    mask: the channels that the small network keeps, bool `[N]`.
    costs: {resource: share of the dense network's cost} of every constrained resource.
    masks: {method: bool `[N]`} of all methods.
    rows: the rows of the table: the dense network, the classical pruners, and the agent.
    metric: name of the scores in the rows.
    graph: the dense network's channels.
    search: the agent's shortlist, with the number of evaluations and seconds of its search.
    example: one input `[1, ...]`, which `save` needs.
    explanation: what became of every layer and channel, for the report.
  """

  network: Compact
  module: Any
  trainable: Network
  mask: np.ndarray
  costs: dict[str, float]
  masks: dict[str, np.ndarray]
  rows: Sequence[Row]
  metric: str
  graph: ChannelGraph
  search: Proposal
  example: Any = dataclasses.field(repr=False)
  explanation: Explanation = dataclasses.field(repr=False)

  def __str__(self) -> str:
    """Returns the table as text."""
    return comparison(self.rows, self.metric)

  def save(self, path: str | os.PathLike, batch: int | None = None) -> None:
    """Writes masks, table and network to a new directory, which appears once it is complete.

    `gatprune_jax.load(path + "/network")` reads the network back, with `trainable=True` to train or
    prune it further.

    Args:
      path: the directory.
      batch: number of examples that the saved network takes; None: any number.

    Raises:
      InputError: if the path exists already or cannot be written, or the network cannot be saved
        for this batch.
    """
    path = os.fspath(path)
    if os.path.exists(path):
      raise InputError(f"{path} exists: choose another path, or remove it first")
    if not is_first():
      return
    try:
      with whole_directory(path) as partial:
        self.save_masks(os.path.join(partial, _MASKS))
        write_json(os.path.join(partial, _ROWS), [row._asdict() for row in self.rows])
        with whole_file(os.path.join(partial, _TABLE)) as file:
          file.write(f"{self}\n".encode())
        save(os.path.join(partial, _NETWORK), self.trainable, self.example, batch)
    except OSError as error:
      raise InputError(f"{path} cannot be written: {error.strerror}") from error

  def save_masks(self, path: str) -> None:
    """Writes the masks of all methods to an npz file, each under the method's name."""
    with whole_file(path) as file:
      np.savez(file, **{name.replace(" ", "_"): mask for name, mask in self.masks.items()})


def in_own_form(network: Network, small: Network, x: Any) -> Any:
  """Returns the small network as a module of its framework.

  The framework's own code runs on the small variables, and its outputs are compared with those of
  the compact network. Code that fixes the number of channels can fail at the small shapes, or can
  compute something else.

  Args:
    network: the dense network, whose functions are the framework's own code.
    small: the compact network.
    x: a batch of inputs `[B, ...]` on which both are compared.

  Returns:
    The module, or None if the framework's code fails or its outputs differ.
  """
  if network.in_own_form is None:
    return None
  expected = small.eval_fn(small.variables, x)
  try:
    outputs = network.eval_fn(small.variables, x)
  except Exception:  # a framework may raise any exception when its code checks shapes
    return None
  close = lambda a, b: np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-3, atol=1e-4)
  if jax.tree.structure(outputs) != jax.tree.structure(expected):
    return None
  same = all(jax.tree.leaves(jax.tree.map(close, outputs, expected)))
  return network.in_own_form(small.variables) if same else None
