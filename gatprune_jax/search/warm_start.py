"""The agent's first logits: at the budgets, in the order of a classical pruner."""

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.agent import MAX_LOGIT, bounded, rank_among_all
from gatprune_jax.channels import Budgets


def warm_logits(order: np.ndarray, half_range: float, budgets: Budgets) -> jax.Array:
  """Returns logits `half_range * rank + shift` whose expected costs meet the budgets.

  Ranks are evenly spaced from above -1 to below 1, and highest for the first channel of the order.
  Logits stay within the policy's bounds, so a budget of 1, the whole network, is not quite reached.
  Nearly every term of a cost is a product over distinct channels, so the cost of the keep
  probabilities is the expected cost. This cost grows with the shift, so bisection finds the shift.

  Args:
    order: the order in which a classical pruner keeps channels, 0 first, `[N]`.
    half_range: half the range of the logits.
    budgets: the constraints; the largest violation becomes zero.

  Returns:
    The logits, float32 `[N]`.
  """
  ranked = half_range * jnp.asarray(rank_among_all(-order), jnp.float32)
  logits_at = lambda shift: bounded(ranked + shift)
  over = jax.jit(lambda shift: budgets.violations(jax.nn.sigmoid(logits_at(shift))).max())
  reach = max(20.0, half_range + MAX_LOGIT)  # so large that every logit is at one of its bounds
  low, high = -reach, reach
  for _ in range(40):
    middle = (low + high) / 2
    low, high = (low, middle) if over(middle) > 0 else (middle, high)
  return logits_at(low)
