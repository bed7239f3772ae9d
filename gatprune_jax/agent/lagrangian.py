"""Lagrange multipliers of the constrained MDP: one per constraint, under PI control.

The Lagrangian is max_pi min_{lambda >= 0} E[R - sum_k lambda_k v_k]. Plain dual ascent is integral
control, which oscillates; a proportional term damps it (Stooke et al. 2020, arXiv 2007.03964):

  I <- clip(I + k_i v, 0, lambda_max)          lambda = clip(I + k_p v, 0, lambda_max)

Clipping the integral itself is the anti-windup: it never stores what the bound keeps from acting.
"""

import dataclasses

import chex
import flax.struct
import jax
import jax.numpy as jnp

from gatprune_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class DualConfig:
  """Gains of the controller.

  Attributes:
    proportional: k_p, gain on the violation, which is measured in shares of the budget.
    integral: k_i, gain on the sum of the violations so far, per update.
    maximum: lambda_max, the bound of a multiplier.
  """

  proportional: float = 0.5
  integral: float = 0.05
  maximum: float = 10.0

  def __post_init__(self):
    """Refuses gains that cannot control."""
    if self.proportional < 0 or self.integral <= 0 or self.maximum <= 0:
      raise InputError(
        f"dual gains proportional {self.proportional}, integral {self.integral} and maximum "
        f"{self.maximum}: the first must not be negative, the others must be positive"
      )


@flax.struct.dataclass
class Multipliers:
  """State of the controller."""

  value: jax.Array  # [K] lambda
  integral: jax.Array  # [K] I


def init_multipliers(num_constraints: int) -> Multipliers:
  """All multipliers at zero."""
  return Multipliers(jnp.zeros(num_constraints), jnp.zeros(num_constraints))


def update_multipliers(
  config: DualConfig, multipliers: Multipliers, violation: jax.Array
) -> Multipliers:
  """One step of PI control on the mean violations v `[K]`, positive where over budget."""
  chex.assert_equal_shape([violation, multipliers.value])
  integral = jnp.clip(multipliers.integral + config.integral * violation, 0, config.maximum)
  value = jnp.clip(integral + config.proportional * violation, 0, config.maximum)
  return Multipliers(value, integral)


def utility(reward: jax.Array, violation: jax.Array, multiplier: jax.Array) -> jax.Array:
  """U = (R - sum_k lambda_k v_k) / (1 + sum_k lambda_k).

  Dividing keeps U's scale when a multiplier grows. Reward and cost are combined before anything
  is standardised: standardised apart, a multiplier would no longer be a price.

  Args:
    reward: `[B]`.
    violation: `[B, K]`.
    multiplier: `[K]`.
  """
  chex.assert_rank([reward, violation, multiplier], [1, 2, 1])
  return (reward - violation @ multiplier) / (1 + multiplier.sum())
