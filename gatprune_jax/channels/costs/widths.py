"""The widths of groups that the agent's masks have, and how a mask is brought to them.

A width is the number of channels that a group keeps. Every width from the floor on is allowed where
costs are counted. Where latency is constrained, the device computes channels in blocks, and a block
that is not full takes as long as a full one, or longer. Allowed are then the floor, the multiples
of the block size and the whole group.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.costs.ranking import rank_in_group


def nearest_widths(sizes: np.ndarray, floors: np.ndarray, block: int) -> np.ndarray:
  """Returns the allowed width that is nearest to each number of channels, int64 `[G, W + 1]`.

  Entry [g, n] is for n channels of group g, where W is the size of the largest group. Of two widths
  that are equally near it is the larger one.

  Args:
    sizes: number of channels of each of G groups.
    floors: fewest channels that each group keeps, `[G]`.
    block: number of channels that the device computes together; 1 allows every width.
  """
  counts = np.arange(max(sizes) + 1)
  rows = []
  for size, floor in zip(sizes, floors, strict=True):
    multiples = np.arange(0, size, block)
    allowed = np.unique([floor, *multiples[multiples >= floor], size])[::-1]
    rows.append(allowed[np.abs(allowed[:, None] - counts).argmin(0)])
  return np.stack(rows)


def bring_to_widths(
  mask: jax.Array, priority: jax.Array, group_of: jax.Array, starts: jax.Array, widths: jax.Array
) -> jax.Array:
  """Brings each group to the allowed width nearest to the number of channels that it keeps.

  A group that has to grow gains its removed channels of highest priority, and one that has to
  shrink loses its kept channels of lowest priority.

  Args:
    mask: bool `[N]`, 1 = keep.
    priority: `[N]`, finite.
    group_of: group of each channel `[N]`.
    starts: number of channels in all groups before each group `[G]`.
    widths: from `nearest_widths`, `[G, W + 1]`.

  Returns:
    The mask in which every group has an allowed width, bool `[N]`.
  """
  kept = jnp.zeros(len(starts), int).at[group_of].add(mask.astype(int))
  width = jnp.take_along_axis(widths, kept[:, None], axis=1)[:, 0]
  kept_first = priority + jnp.where(mask, 1.0 + jnp.ptp(priority), 0.0)
  return rank_in_group(kept_first, group_of, starts) < width[group_of]
