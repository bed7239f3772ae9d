"""The agent's first logits: at the budgets, in the order of a classical pruner."""

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.agent import MAX_LOGIT, bounded, rank_among_all
from gatprune_jax.search.mdp import Environment, transition

_PAIRS = 32  # drawn pairs of masks, over which the mean costs are taken
_HALVINGS = 24  # of the interval in which the shift is looked for


def warm_logits(order: np.ndarray, half_range: float, environment: Environment) -> jax.Array:
  """Returns logits `half_range * rank + shift` with which the mean costs of masks meet the budgets.

  Ranks are evenly spaced from above -1 to below 1, and highest for the first channel of the order.
  Logits stay within the policy's bounds, so a budget of 1, the whole network, is not quite reached.
  Costs grow with the shift, because all shifts use the same uniform numbers, so bisection finds the
  shift. The numbers are drawn in antithetic pairs u and 1 - u: a mask with many channels has a
  partner with few, which takes most of the noise out of the mean.

  Args:
    order: the order in which a classical pruner keeps channels, 0 first, `[N]`.
    half_range: half the range of the logits.
    environment: turns bits into masks, and has the budgets; the largest mean violation becomes 0.

  Returns:
    The logits, float32 `[N]`.
  """
  ranked = half_range * jnp.asarray(rank_among_all(-order), jnp.float32)
  logits_at = lambda shift: bounded(ranked + shift)
  uniform = jax.random.uniform(jax.random.key(0), (_PAIRS, len(order)))
  uniform = jnp.concatenate([uniform, 1 - uniform])

  @jax.jit
  def over(shift: jax.Array) -> jax.Array:
    keep = jax.nn.sigmoid(logits_at(shift))
    violation = lambda row: environment.budgets.violations(transition(environment, row < keep))
    return jax.lax.map(violation, uniform).mean(0).max()

  reach = max(20.0, half_range + MAX_LOGIT)  # so large that every logit is at one of its bounds
  low, high = -reach, reach
  for _ in range(_HALVINGS):
    middle = (low + high) / 2
    low, high = (low, middle) if over(middle) > 0 else (middle, high)
  return logits_at(low)
