"""Where the arrays of a training are: one network on every device, or candidates shared out."""

import dataclasses
from typing import Any

import flax.struct
import jax

from gatprune_jax.data import Feed, Split, make_feed
from gatprune_jax.runtime import mesh
from gatprune_jax.training.recipe import Recipe
from gatprune_jax.training.step import TrainState


@flax.struct.dataclass
class Carry:
  """What a training saves: its state, and the metrics of the current epoch's steps."""

  state: TrainState
  history: dict[str, jax.Array]  # {metric: [steps per epoch, ...]}


@dataclasses.dataclass(frozen=True)
class Placement:
  """On which devices a training's arrays are.

  Attributes:
    candidates: number of candidates, which are shared out over the devices, while every device has
      the whole batch. None: one network is on every device, and the batch is shared out.
  """

  candidates: int | None

  def shardings(self) -> Carry:
    """Returns the shardings of the carry that a step returns."""
    state = mesh.everywhere() if self.candidates is None else mesh.shares()
    return Carry(state, mesh.everywhere())

  def put(self, carry: Carry) -> Carry:
    """Distributes a carry, such as the start or a restored one, over all devices."""
    place = mesh.replicate if self.candidates is None else mesh.share_out
    return Carry(place(carry.state), mesh.replicate(carry.history))

  def fetch(self, carry: Carry) -> Carry:
    """Returns the carry as a single device would hold it; the opposite of `put`."""
    return Carry(self.fetch_state(carry.state), carry.history)

  def fetch_state(self, tree: Any) -> Any:
    """Does what `fetch` does for a state or a part of it."""
    if self.candidates is None or mesh.num_devices() == 1:
      return mesh.local(tree)
    return jax.tree.map(lambda leaf: leaf[: self.candidates], mesh.to_host(tree))

  def feed(self, split: Split, recipe: Recipe) -> Feed:
    """Returns the feed of batches, placed on the devices as the steps expect them."""
    return make_feed(split, recipe.batch_size, recipe.crop_area, shared=self.candidates is None)

  def batch(self, batch: Any, size: int) -> Any:
    """Returns the batch without the rows that fill up the devices' shares; for use within a step.

    Args:
      batch: inputs and targets from the feed, a tree of arrays `[rows, ...]`.
      size: number of examples in the batch.
    """
    return batch if self.candidates is not None else mesh.as_batch(batch, size)
