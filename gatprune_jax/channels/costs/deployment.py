"""How a pruned network is going to be run, which some of its costs depend on."""

import dataclasses
import os

from gatprune_jax.channels.costs.latency_table import LatencyTable, read_latency_table
from gatprune_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Deployment:
  """How the pruned network is going to be run.

  Attributes:
    batch: number of examples in one forward pass, for the costs that depend on it, such as
      activation_bytes and latency.
    latency_table: what the network's layers cost, for budgets of latency: a table, or the path of
      its file. None: `prune` measures one on the device at hand. A table that is given may be of
      another device. It may be of the network that this one was first cut from (`Network.origin`);
      shares are then of that network's latency.
  """

  batch: int = 1
  # A table is no number or text, so configs of experiments name its file in a section of their own.
  latency_table: LatencyTable | str | os.PathLike | None = dataclasses.field(
    default=None, repr=False, metadata={"setting": False}
  )

  def __post_init__(self):
    """Raises InputError for a batch without examples, or a table that is none or of another one."""
    if self.batch < 1:
      raise InputError(f"deployment batch is {self.batch}: it must be at least 1")
    table = self.latency_table
    if isinstance(table, str | os.PathLike):
      table = read_latency_table(table)
      object.__setattr__(self, "latency_table", table)
    if table is None:
      return
    if not isinstance(table, LatencyTable):
      raise InputError(
        f"deployment latency_table is of type {type(table).__name__}: give the path of a file, or "
        "what gatprune_jax.measure_latency returns"
      )
    if table.batch != self.batch:
      raise InputError(
        f"the latency table is for a batch of {table.batch}, but the deployment's is {self.batch}: "
        "give a table for this batch, or deploy with the table's"
      )
