"""Lagrange multipliers of the constrained MDP: one per constraint, under PI control.

The Lagrangian is max_pi min_{lambda >= 0} E[R - sum_k lambda_k v_k]. Plain dual ascent is integral
control, which oscillates; a proportional term damps it (Stooke et al. 2020, arXiv 2007.03964):

  I <- clip(I + k_i s v, 0, lambda_max)        lambda = clip(I + k_p s v, 0, lambda_max)

The integral I itself is clipped, which prevents windup: I never accumulates an amount that the
bound lambda_max keeps from taking effect. s is the unit of the gains, see `set_units`: with it, the
controller does the same whatever the scale of the reward and however little the costs of samples
differ. I starts at 0, so that a search first learns what the channels are worth and then, as lambda
grows, gives up what they cost.
"""

import dataclasses

import chex
import flax.struct
import jax
import jax.numpy as jnp

from gatprune_jax.errors import InputError

_SMALLEST = 1e-6  # standard deviation below which violations count as equal


@dataclasses.dataclass(frozen=True)
class DualConfig:
  """Gains of the PI controller.

  They are measured in what the first samples show: violations in their standard deviation std[v],
  prices in std[R] / std[v]. If a multiplier that is too low by one of these lets the mean cost grow
  by a standard deviations in each update, the controller is critically damped where
  k_p = 2 sqrt(k_i / a). With gains that are too small, a search spends its masks above the budget;
  experiments/RESULTS.md has examples.

  Attributes:
    proportional: k_p, gain on the mean violation.
    integral: k_i, gain on the sum of the mean violations of all updates so far.
    maximum: lambda_max, the upper bound of each multiplier, rewards per share of the budget.
  """

  proportional: float = 0.25
  integral: float = 0.025
  maximum: float = 10.0

  def __post_init__(self):
    """Raises InputError for gains with which the controller cannot work."""
    if self.proportional < 0 or self.integral <= 0 or self.maximum <= 0:
      raise InputError(
        f"dual gains proportional {self.proportional}, integral {self.integral} and maximum "
        f"{self.maximum}: the first must not be negative, the others must be positive"
      )


@flax.struct.dataclass
class Multipliers:
  """State of the PI controller."""

  value: jax.Array  # [K] lambda
  integral: jax.Array  # [K] I
  unit: jax.Array  # [K] s, the unit of the gains; zeros until the first samples


def init_multipliers(num_constraints: int) -> Multipliers:
  """Returns the state before the first samples, in which all multipliers are zero."""
  return Multipliers(*[jnp.zeros(num_constraints)] * 3)


def set_units(multipliers: Multipliers, reward: jax.Array, violation: jax.Array) -> Multipliers:
  """Sets the units of the gains by the first samples; later calls change nothing.

  The unit is s = std[R] / std[v]^2, or 1 where all violations are equal: the gains are for
  violations in standard deviations, v / std[v], and give prices in std[R] / std[v]. The more
  channels a network has, the less the costs of its samples differ. A mean violation by one standard
  deviation leaves one sample in six within the budget, whatever share of the budget it is.

  Args:
    multipliers: the state.
    reward: R, `[B]`; with equal rewards no unit is set.
    violation: v, `[B, K]`.
  """
  chex.assert_rank([reward, violation], [1, 2])
  spread = violation.std(0)
  differs = spread > _SMALLEST
  unit = jnp.where(differs, reward.std() / jnp.where(differs, spread, 1.0) ** 2, 1.0)
  is_set = (multipliers.unit > 0).any()
  return multipliers.replace(unit=jnp.where(is_set, multipliers.unit, unit))


def update_multipliers(
  config: DualConfig, multipliers: Multipliers, violation: jax.Array
) -> Multipliers:
  """Takes one step of PI control on the mean violations of a batch.

  Args:
    config: the gains.
    multipliers: the state before the step.
    violation: v, the mean violation of each constraint, `[K]`, positive where over budget.
  """
  chex.assert_equal_shape([violation, multipliers.value])
  violation = multipliers.unit * violation
  integral = jnp.clip(multipliers.integral + config.integral * violation, 0, config.maximum)
  value = jnp.clip(integral + config.proportional * violation, 0, config.maximum)
  return multipliers.replace(value=value, integral=integral)


def utility(reward: jax.Array, violation: jax.Array, multiplier: jax.Array) -> jax.Array:
  """U = (R - sum_k lambda_k v_k) / (1 + sum_k lambda_k).

  The division keeps the scale of U when a multiplier grows (Stooke et al. 2020). Reward and cost
  are combined before anything is standardised. If each were standardised on its own, a multiplier
  would no longer be the price of a violation.

  Args:
    reward: R, `[B]`.
    violation: v, `[B, K]`.
    multiplier: lambda, `[K]`.

  Returns:
    U, `[B]`.
  """
  chex.assert_rank([reward, violation, multiplier], [1, 2, 1])
  return (reward - violation @ multiplier) / (1 + multiplier.sum())
