"""The critic: a surrogate of the reward as a function of the mask, fitted to scored masks.

The score is a deterministic function of the mask, so a mask and its score stay valid training data
however much the policy changes. The surrogate is linear, Q(m) = q + w . (m - c). If the bits are
independent with probabilities p, the expectation of Q is exactly Q(p), so the surrogate can serve
as a control variate of the policy gradient. The costs in the utility are known functions of the
mask, so they are linearised at p instead of being learned.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from gatprune_jax.agent.ppo import leave_one_out
from gatprune_jax.errors import InputError
from gatprune_jax.runtime.maps import over_rows

# Ridge penalties to choose from, in units of the variance of a standardised reward. With the
# smallest one every channel explains part of the reward; with the largest one hardly any of the
# reward is explained.
_RIDGES = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)


@dataclasses.dataclass(frozen=True)
class CriticConfig:
  """Settings of the critic: how the surrogate is fitted and used.

  Attributes:
    window: number of the latest scored masks to which the surrogate is fitted; 0 switches the
      critic off.
    prior: c, the prior variance of the part of the weights that is linear in the channel features,
      relative to the prior variance of the part that is separate for each channel.
    residual_weight: alpha, the weight of the part of the utility that the surrogate does not
      explain. 1 gives an unbiased policy gradient; a smaller value has a bias but less variance.
  """

  window: int = 512
  prior: float = 0.1
  residual_weight: float = 0.5

  def __post_init__(self):
    """Raises InputError for negative values."""
    for field in dataclasses.fields(self):
      if (value := getattr(self, field.name)) < 0:
        raise InputError(f"critic {field.name} is {value}: it must not be negative")


class Surrogate(NamedTuple):
  """Linear function of the mask, Q(m) = value + weights . (m - centre)."""

  weights: jax.Array  # [N]
  centre: jax.Array  # [N]
  value: jax.Array  # scalar

  def __call__(self, masks: jax.Array) -> jax.Array:
    """Returns Q `[...]` of masks `[..., N]`."""
    return self.value + masks @ self.weights - self.centre @ self.weights


def fit_surrogate(
  masks: jax.Array, rewards: jax.Array, valid: jax.Array, features: jax.Array, prior: float
) -> Surrogate:
  """Fits rewards to masks by ridge regression: the posterior mean under w ~ N(0, I + c F F^T).

  With Z the centred masks, y the standardised rewards and K = Z Z^T + c (Z F)(Z F)^T:

    a = (K + r I)^-1 y          w = Z^T a + c F (Z F)^T a

  The ridge r is chosen from a few candidates: it has the smallest sum of squared leave-one-out
  errors. The leave-one-out error of row b is a_b / [(K + r I)^-1]_bb. With the Cholesky factor L of
  K + r I, the inverse is L^-T L^-1, and its diagonal holds the squared lengths of the columns of
  L^-1.

  Args:
    masks: `[W, N]`, 1 = keep.
    rewards: reward of each mask, `[W]`.
    valid: `[W]` bool, True for the rows to use.
    features: F, the features of each channel, `[N, D]`, standardised.
    prior: c, see `CriticConfig`.
  """
  chex.assert_rank([masks, rewards, valid, features], [2, 1, 1, 2])
  # With the products rounded to a lower precision, K would not be positive definite.
  with jax.default_matmul_precision("highest"):
    return _fit(masks, rewards, valid, features, prior)


def _fit(masks, rewards, valid, features, prior) -> Surrogate:
  use = valid.astype(jnp.float32)
  count = jnp.maximum(use.sum(), 1.0)
  masks = masks.astype(jnp.float32)
  centre, mean = use @ masks / count, use @ rewards / count
  std = jnp.sqrt(use @ (rewards - mean) ** 2 / count) + 1e-8
  z, y = (masks - centre[None]) * use[:, None], (rewards - mean) * use / std
  zf = z @ features
  kernel, identity = z @ z.T + prior * zf @ zf.T, jnp.eye(len(y))

  def solve(ridge):
    factor = jnp.linalg.cholesky(kernel + ridge * identity)
    inverse = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
    dual = inverse.T @ (inverse @ y)
    return dual, (use * (dual / (inverse**2).sum(0)) ** 2).sum()

  duals, errors = over_rows(solve, jnp.array(_RIDGES))
  dual = duals[errors.argmin()]
  weights = z.T @ dual + prior * features @ (zf.T @ dual)
  return Surrogate(std * weights, centre, mean)


def utility_surrogate(
  reward: Surrogate,
  violations: Callable[[jax.Array], jax.Array],
  price: jax.Array,
  probabilities: jax.Array,
) -> Surrogate:
  """Linearises the utility (R(m) - lambda . v(m)) / (1 + sum lambda) in the mask.

  Args:
    reward: R, from `fit_surrogate`.
    violations: v, maps a mask `[N]` to `[K]`; it is linearised at the probabilities.
    price: the multipliers lambda, `[K]`.
    probabilities: probability of "keep" of each channel, `[N]`; the centre of the result.
  """
  chex.assert_rank([price, probabilities], 1)
  violation, pull = jax.vjp(violations, probabilities)
  (marginal,) = pull(price.astype(violation.dtype))
  scale = 1 + price.sum()
  return Surrogate(
    (reward.weights - marginal) / scale,
    probabilities,
    (reward(probabilities) - price @ violation) / scale,
  )


def counterfactual_advantages(
  utility: jax.Array, bits: jax.Array, probabilities: jax.Array, surrogate: Surrogate, alpha: float
) -> jax.Array:
  """A_bi = alpha [U_b - Q(x_b)] + w_i (x_bi - p_i), divided by the root mean square of A.

  From each residual U_b - Q(x_b), the mean residual of the other samples is subtracted first. The
  second term is the surrogate's prediction of the effect of bit i alone, compared with the policy's
  average bit. With alpha = 1 and a surrogate that was not fitted to these samples, the policy
  gradient is unbiased for independent bits.

  Args:
    utility: U, `[B]`, B >= 2.
    bits: x, the sampled bits, `[B, N]`.
    probabilities: p, the probability of "keep" of each bit, `[B, N]`.
    surrogate: Q, a surrogate of the utility.
    alpha: weight of the residual.

  Returns:
    The advantage A of each bit, `[B, N]`.
  """
  chex.assert_rank([utility, bits, surrogate.weights], [1, 2, 1])
  chex.assert_equal_shape([bits, probabilities])
  residual = leave_one_out(utility - surrogate(bits))
  advantage = alpha * residual[:, None] + surrogate.weights[None] * (bits - probabilities)
  return advantage / (jnp.sqrt((advantage**2).mean()) + 1e-8)
