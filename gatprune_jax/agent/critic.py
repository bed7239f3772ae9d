"""The critic: a surrogate of the reward as a function of the mask, learned from all scored masks.

The score is a deterministic function of the mask, so that every scored pair stays valid however
the policy moves. The surrogate is linear, Q(m) = q + w . (m - c): under independent bits with
probabilities p its expectation is Q(p), exactly, which makes it a control variate. The costs in the
utility are known functions of the mask; they are linearised at p, not learned.
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

# Ridge penalties to choose from, in units of the variance of a standardised reward: from "every
# channel explains" to "nothing is explained".
_RIDGES = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)


@dataclasses.dataclass(frozen=True)
class CriticConfig:
  """How the surrogate is fitted and used.

  Attributes:
    window: latest scored masks that it is fitted to; 0 is no critic.
    prior: c, the prior variance of weights along the channel features, relative to that of each
      channel's own.
    residual_weight: alpha, of what the surrogate does not explain. 1 is unbiased; less trades a
      bias for less variance.
  """

  window: int = 512
  prior: float = 0.1
  residual_weight: float = 0.5

  def __post_init__(self):
    """Refuses values that cannot be fitted."""
    for field in dataclasses.fields(self):
      if (value := getattr(self, field.name)) < 0:
        raise InputError(f"critic {field.name} is {value}: it must not be negative")


class Surrogate(NamedTuple):
  """Q(m) = value + weights . (m - centre)."""

  weights: jax.Array  # [N]
  centre: jax.Array  # [N]
  value: jax.Array  # scalar

  def __call__(self, masks: jax.Array) -> jax.Array:
    """Q of masks `[..., N]`, `[...]`."""
    return self.value + masks @ self.weights - self.centre @ self.weights


def fit_surrogate(
  masks: jax.Array, rewards: jax.Array, valid: jax.Array, features: jax.Array, prior: float
) -> Surrogate:
  """Ridge regression of rewards on masks: the posterior mean under w ~ N(0, I + c F F^T).

  With Z the centred masks, y the standardised rewards and K = Z Z^T + c (Z F)(Z F)^T:

    a = (K + r I)^-1 y          w = Z^T a + c F (Z F)^T a

  The ridge r is the one of a few with the least squared leave-one-out error, which is
  a_b / [(K + r I)^-1]_bb for row b. With the Cholesky factor L of K + r I, the inverse is
  L^-T L^-1, and its diagonal the squared lengths of the columns of L^-1.

  Args:
    masks: `[W, N]`.
    rewards: `[W]`.
    valid: `[W]` bool, the rows to use.
    features: F, `[N, D]`, standardised.
    prior: c.
  """
  chex.assert_rank([masks, rewards, valid, features], [2, 1, 1, 2])
  with jax.default_matmul_precision("highest"):  # rounded more, K is not positive definite
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
  """The utility (R(m) - lambda . v(m)) / (1 + sum lambda) as a linear function of the mask.

  Args:
    reward: R, from `fit_surrogate`.
    violations: v, of a mask `[N]`; linearised around the probabilities.
    price: the multipliers lambda, `[K]`.
    probabilities: of "keep", `[N]`; the centre of the result.
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
  """A_bi = alpha [U_b - Q(x_b)] + w_i (x_bi - p_i), over the root mean square of A, `[B, N]`.

  The residual has its leave-one-out mean subtracted. The second term is what the surrogate
  expects of bit i alone, against the policy's average bit. With alpha = 1 and a surrogate that
  has not seen these samples, the policy gradient is unbiased for independent bits.

  Args:
    utility: U, `[B]`, B >= 2.
    bits: x as sampled, `[B, N]`.
    probabilities: p, of "keep", `[B, N]`.
    surrogate: Q, of the utility.
    alpha: weight of the residual.
  """
  chex.assert_rank([utility, bits, surrogate.weights], [1, 2, 1])
  chex.assert_equal_shape([bits, probabilities])
  residual = leave_one_out(utility - surrogate(bits))
  advantage = alpha * residual[:, None] + surrogate.weights[None] * (bits - probabilities)
  return advantage / (jnp.sqrt((advantage**2).mean()) + 1e-8)
