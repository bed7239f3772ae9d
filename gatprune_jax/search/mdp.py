"""The constrained MDP of channel pruning (Balemans et al. 2025, arXiv 2509.10526).

A schedule says in which step of an episode each channel is decided. The state is the mask so far
and the channels already decided. An action is one bit per channel, and the transition turns the
bits into a mask, in which every group has an allowed width.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.agent import bits as bits_of
from gatprune_jax.agent import sample
from gatprune_jax.channels import (
  Budgets,
  ChannelGraph,
  Constraints,
  bring_to_widths,
  group_starts,
)
from gatprune_jax.errors import InputError

# logits_fn(mask [N], decided [N]) -> logits [N]: the policy, evaluated in one state.
LogitsFn = Callable[[jax.Array, jax.Array], jax.Array]


def one_shot(graph: ChannelGraph) -> np.ndarray:
  """Returns decisions, bool `[1, N]`, in which one step decides all channels."""
  return np.ones((1, graph.num_channels), bool)


def layerwise(graph: ChannelGraph) -> np.ndarray:
  """Returns decisions, bool `[groups, N]`: one group per step, in network order."""
  return graph.group_of[None] == np.arange(len(graph.groups))[:, None]


# A new schedule is one entry: a function that returns decisions[t, n], True where step t decides
# channel n. Exactly one step decides each channel.
SCHEDULES: dict[str, Callable[[ChannelGraph], np.ndarray]] = {
  "one_shot": one_shot,
  "layerwise": layerwise,
}

# These are the ways to bring masks within the budgets: multipliers put a price on exceeding the
# budgets, or every mask is projected onto the budgets.
CONSTRAINTS = ("lagrangian", "projection")


def make_decisions(graph: ChannelGraph, schedule: str) -> np.ndarray:
  """Returns the named schedule's decisions, bool `[T, N]`.

  Raises:
    InputError: if the schedule is unknown.
  """
  if schedule not in SCHEDULES:
    raise InputError(f"schedule {schedule!r} is unknown: choose from {', '.join(SCHEDULES)}")
  return SCHEDULES[schedule](graph)


@flax.struct.dataclass
class Environment:
  """Constants of all episodes, as a pytree that can be an argument under jit."""

  decisions: jax.Array  # [T, N] bool, every channel in exactly one step
  budgets: Budgets
  widths: jax.Array  # [groups, W + 1] allowed width nearest to each number of channels
  group_of: jax.Array  # [N]
  starts: jax.Array  # [groups] number of channels in all groups before each group
  priority: jax.Array  # [N] a width or a projection keeps the highest first
  # True if every mask is projected onto the budgets.
  projected: bool = flax.struct.field(pytree_node=False)


def make_environment(
  constraints: Constraints,
  decisions: np.ndarray,
  priority: np.ndarray,
  constraint: str = "lagrangian",
) -> Environment:
  """Collects the arrays of an environment.

  Args:
    constraints: the budgets and floors.
    decisions: bool `[T, N]`, from `make_decisions`.
    priority: `[N]`; a width or a projection keeps the channels of highest priority first.
    constraint: one of `CONSTRAINTS`.
  """
  return Environment(
    jnp.asarray(decisions),
    constraints.budgets,
    jnp.asarray(constraints.widths),
    jnp.asarray(constraints.graph.group_of),
    jnp.asarray(group_starts(constraints.graph)),
    jnp.asarray(priority, jnp.float32),
    projected=constraint == "projection",
  )


def transition(env: Environment, bits: jax.Array) -> jax.Array:
  """Returns the mask that the bits `[N]` lead to: every group has the nearest allowed width.

  Where costs are counted, this changes only groups below their floors. Where latency is
  constrained, a sample of single channels would pay for whole blocks and hardly use them.
  With projection, channels are also removed or added by priority until the mask is just within the
  budgets. In both cases the mask is a function of the bits alone, so the log-probability of an
  action remains that of the sampled bits.
  """
  if env.projected:
    bits = _project(env, bits)
  return _with_widths(env, bits)


def _with_widths(env: Environment, bits: jax.Array) -> jax.Array:
  return bring_to_widths(bits, env.priority, env.group_of, env.starts, env.widths)


def _project(env: Environment, bits: jax.Array) -> jax.Array:
  """Keeps the longest prefix of the channels, kept bits first and then by priority, that fits.

  The cost of a prefix is that of the mask in which every group has the nearest allowed width.
  """
  order = jnp.lexsort((-env.priority, ~bits))
  place = jnp.zeros(len(order), jnp.int32).at[order].set(jnp.arange(len(order)))

  def halve(_, bounds):
    low, high = bounds
    middle = (low + high + 1) // 2
    violations = env.budgets.violations(_with_widths(env, place < middle))
    fits = env.budgets.within_tolerance(violations)
    return jnp.where(fits, middle, low), jnp.where(fits, high, middle - 1)

  bounds = (jnp.zeros((), jnp.int32), jnp.asarray(len(order), jnp.int32))
  size, _ = jax.lax.fori_loop(0, len(order).bit_length(), halve, bounds)
  return place < size


def states(env: Environment, bits: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the state before a step of the episode that ends with `bits`.

  Channels that are not yet decided have the bit "keep". A projection may remove these channels to
  meet the budgets, like all other channels.

  Args:
    env: the environment.
    bits: the bits at the end of the episode, bool `[N]`.
    step: number of the step, from 0; scalar int.

  Returns:
    The mask so far and the channels decided by earlier steps, both bool `[N]`.
  """
  earlier = jnp.arange(env.decisions.shape[0]) < step
  decided = (env.decisions & earlier[:, None]).any(0)
  return transition(env, bits | ~decided), decided


def rollout(
  env: Environment, logits_fn: LogitsFn, num: int, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Samples episodes.

  Args:
    env: the environment.
    logits_fn: the policy.
    num: B, the number of episodes.
    key: PRNG key.

  Returns:
    The sampled bits, bool `[B, N]`, and the logits under which each was drawn, `[B, N]`.
  """
  num_steps, num_channels = env.decisions.shape
  # The first state is the same in every episode, so one evaluation serves all of them.
  mask, decided = states(env, jnp.ones(num_channels, bool), jnp.zeros((), jnp.int32))
  logits = jnp.broadcast_to(logits_fn(mask, decided), (num, num_channels))
  bits = sample(jax.random.fold_in(key, 0), bits_of(logits))

  def advance(step, carry):
    bits, logits = carry
    new = jax.vmap(lambda b: logits_fn(*states(env, b, step)))(bits)
    here = env.decisions[step][None]
    drawn = sample(jax.random.fold_in(key, step), bits_of(new))
    return jnp.where(here, drawn, bits), jnp.where(here, new, logits)

  if num_steps > 1:
    bits, logits = jax.lax.fori_loop(1, num_steps, advance, (bits, logits))
  return bits, logits


def decision_logits(env: Environment, logits_fn: LogitsFn, bits: jax.Array) -> jax.Array:
  """Returns the logits under which the policy decides each bit in the episodes ending in `bits`.

  Args:
    env: the environment.
    logits_fn: the policy; the result can be differentiated through it.
    bits: the bits at the end of each episode, bool `[B, N]`.

  Returns:
    The logits, `[B, N]`.
  """
  num_steps, num_channels = env.decisions.shape
  mask, decided = states(env, jnp.ones(num_channels, bool), jnp.zeros((), jnp.int32))
  logits = jnp.broadcast_to(logits_fn(mask, decided), bits.shape)

  def advance(logits, step):
    new = jax.vmap(lambda b: logits_fn(*states(env, b, step)))(bits)
    return jnp.where(env.decisions[step][None], new, logits), None

  if num_steps > 1:
    logits, _ = jax.lax.scan(jax.checkpoint(advance), logits, jnp.arange(1, num_steps))
  return logits


def greedy_logits(env: Environment, logits_fn: LogitsFn) -> jax.Array:
  """Returns the logits `[N]` of the episode in which every bit takes its likelier value."""
  num_steps, num_channels = env.decisions.shape

  def advance(step, carry):
    bits, logits = carry
    new = logits_fn(*states(env, bits, step))
    here = env.decisions[step]
    return jnp.where(here, new > 0, bits), jnp.where(here, new, logits)

  start = (jnp.ones(num_channels, bool), jnp.zeros(num_channels))
  return jax.lax.fori_loop(0, num_steps, advance, start)[1]
