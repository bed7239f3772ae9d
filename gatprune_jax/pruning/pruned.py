"""The outcome of pruning: the small network, and how it compares."""

from collections.abc import Sequence
import dataclasses
import os
from typing import Any

import jax
import numpy as np

from gatprune_jax.channels import ChannelGraph, Compact, save
from gatprune_jax.errors import InputError
from gatprune_jax.networks import Network
from gatprune_jax.pruning.proposals import Proposal
from gatprune_jax.runs.report import Row, comparison
from gatprune_jax.runs.workdir import write_json
from gatprune_jax.runtime.files import whole_file
from gatprune_jax.runtime.processes import is_first

_TABLE, _ROWS, _MASKS, _NETWORK = "table.md", "rows.json", "masks.npz", "network"


@dataclasses.dataclass(frozen=True, eq=False)
class Pruned:
  """A pruned and fine-tuned network, and what it was compared with.

  Attributes:
    network: the small network, `network.apply(network.variables, x)`, in eval mode.
    module: the same in its own framework, an NNX or Equinox module; None where the framework has
      none, or where its code insists on the dense network's shapes.
    trainable: the small network with its train function, to train it on.
    mask: the channels that it keeps, bool `[N]`.
    costs: {resource: share of the dense network's cost} of every constrained resource.
    masks: {method: bool `[N]`} of all methods.
    rows: the table: the dense network, classical pruners, and the agent.
    metric: what the rows' scores are called.
    graph: the dense network's channels.
    search: what the agent proposed, in how many evaluations and seconds.
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
  example: Any = dataclasses.field(repr=False)  # one input, [1, ...]

  def __str__(self) -> str:
    """The table."""
    return comparison(self.rows, self.metric)

  def save(self, path: str | os.PathLike) -> None:
    """Writes masks, table and network to a new directory; `load(path + "/network")` reads it back.

    Raises:
      InputError: where the path exists, or cannot be written.
    """
    path = os.fspath(path)
    if os.path.exists(path):
      raise InputError(f"{path} exists: choose another path, or remove it first")
    if not is_first():
      return
    try:
      os.makedirs(path)
      self.save_masks(os.path.join(path, _MASKS))
      write_json(os.path.join(path, _ROWS), [row._asdict() for row in self.rows])
      with whole_file(os.path.join(path, _TABLE)) as file:
        file.write(f"{self}\n".encode())
    except OSError as error:
      raise InputError(f"{path} cannot be written: {error.strerror}") from error
    save(os.path.join(path, _NETWORK), self.network, self.example)

  def save_masks(self, path: str) -> None:
    """Writes every method's mask by its name, as an npz file."""
    with whole_file(path) as file:
      np.savez(file, **{name.replace(" ", "_"): mask for name, mask in self.masks.items()})


def in_own_form(network: Network, small: Network, x: Any) -> Any:
  """The small network as a module of its framework; None where that does not compute the same.

  Args:
    network: the dense one, whose functions are the framework's own code.
    small: the compact one.
    x: a batch of inputs, on which both are tried.
  """
  if network.in_own_form is None:
    return None
  expected = small.eval_fn(small.variables, x)
  try:
    outputs = network.eval_fn(small.variables, x)
  except Exception:  # whatever a framework raises where its code checks shapes
    return None
  close = lambda a, b: np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-3, atol=1e-4)
  if jax.tree.structure(outputs) != jax.tree.structure(expected):
    return None
  same = all(jax.tree.leaves(jax.tree.map(close, outputs, expected)))
  return network.in_own_form(small.variables) if same else None
