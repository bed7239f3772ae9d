"""How a pruned network is going to be run, which some of its costs depend on."""

import dataclasses

from gatprune_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Deployment:
  """How the pruned network is going to be run.

  Attributes:
    batch: number of examples in one forward pass, for the costs that depend on it, such as
      activation_bytes.
  """

  batch: int = 1

  def __post_init__(self):
    """Raises InputError for a batch without examples."""
    if self.batch < 1:
      raise InputError(f"deployment batch is {self.batch}: it must be at least 1")
