"""Where the agent begins: at the budget, preferring the channels that a classical pruner keeps."""

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.agent import MAX_LOGIT, bounded, rank_among_all
from gatprune_jax.channels import Budgets


def warm_logits(order: np.ndarray, half_range: float, budgets: Budgets) -> jax.Array:
  """Logits `half_range * rank + shift` with the expected costs at the budgets, float32 `[N]`.

  Ranks are evenly spaced from above -1 to below 1, highest for the first channel of the order.
  Logits are within the policy's bounds, so that a budget of everything is not quite reached. Costs
  are products over distinct channels nearly everywhere, so that the cost of the probabilities is
  the expected cost; it grows with the shift, which bisection finds.

  Args:
    order: of a classical pruner, 0 is kept first, `[N]`.
    half_range: of the logits.
    budgets: the constraints; the largest violation becomes zero.
  """
  ranked = half_range * jnp.asarray(rank_among_all(-order), jnp.float32)
  logits_at = lambda shift: bounded(ranked + shift)
  over = jax.jit(lambda shift: budgets.violations(jax.nn.sigmoid(logits_at(shift))).max())
  reach = max(20.0, half_range + MAX_LOGIT)  # every logit at one of its bounds
  low, high = -reach, reach
  for _ in range(40):
    middle = (low + high) / 2
    low, high = (low, middle) if over(middle) > 0 else (middle, high)
  return logits_at(low)
