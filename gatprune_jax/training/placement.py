"""On which devices a training's arrays are: one network on all, or candidates shared out."""

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
  """What is saved of a training: the state, and what is known of the steps of this epoch."""

  state: TrainState
  history: dict[str, jax.Array]  # {metric: [steps per epoch, ...]}


@dataclasses.dataclass(frozen=True)
class Placement:
  """On which devices a training's arrays are.

  Attributes:
    candidates: that are shared out, each with the whole batch; None: one network on every device,
      and the batch shared out.
  """

  candidates: int | None

  def shardings(self) -> Carry:
    """Of what a step returns."""
    state = mesh.everywhere() if self.candidates is None else mesh.shares()
    return Carry(state, mesh.everywhere())

  def put(self, carry: Carry) -> Carry:
    """What one device has, on all."""
    place = mesh.replicate if self.candidates is None else mesh.share_out
    return Carry(place(carry.state), mesh.replicate(carry.history))

  def fetch(self, carry: Carry) -> Carry:
    """What one device would have."""
    return Carry(self.fetch_state(carry.state), carry.history)

  def fetch_state(self, tree: Any) -> Any:
    """The same for a part of the state."""
    if self.candidates is None or mesh.num_devices() == 1:
      return mesh.local(tree)
    return jax.tree.map(lambda leaf: leaf[: self.candidates], mesh.to_host(tree))

  def feed(self, split: Split, recipe: Recipe) -> Feed:
    """Batches as steps expect them."""
    return make_feed(split, recipe.batch_size, recipe.crop_area, shared=self.candidates is None)

  def batch(self, batch: Any, size: int) -> Any:
    """A batch of the feed, a tree of arrays, within a step."""
    return batch if self.candidates is not None else mesh.as_batch(batch, size)
