"""The loop that searches and trainings run: it saves its state, and recovers from NaN and infinity.

A loop restores the newest checkpoint, takes steps, rolls back where steps are not finite, saves its
state now and then, and saves the last state.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.runs.checkpointer import Checkpointer
from gatprune_jax.runs.health import (
  IN_A_ROW,
  ROLLBACKS,
  Diverged,
  Health,
  is_finite,
  must_roll_back,
  refuse_if_all_skipped,
)


class Steps(NamedTuple):
  """The functions of which a loop is made. A state is a tree of arrays.

  Attributes:
    what: the loop's name in reports, such as "the search".
    finished: (number of steps done, state) -> whether the loop is done.
    inputs: number of steps done -> the inputs of the steps after them, in order. The inputs may end
      early, at the end of an epoch for example; the loop then calls this function again.
    step: (state, one input) -> (next state, how many steps in a row were skipped). It may return
      before the devices are done, and may reuse the memory of the given state.
    health: state -> its health, on the host.
    with_health: (fetched state, health) -> the fetched state with this health.
    reached: called with the number of steps done and the state at the start of the loop, after each
      step (once its state may have been saved), and after each roll-back.
    fetch: state -> the form in which it is saved and passed to `with_health`.
    put: the opposite of `fetch`.
  """

  what: str
  finished: Callable[[int, Any], bool]
  inputs: Callable[[int], Iterable[Any]]
  step: Callable[[Any, Any], tuple[Any, jax.Array]]
  health: Callable[[Any], Health]
  with_health: Callable[[Any, Health], Any]
  reached: Callable[[int, Any], None] = lambda done, state: None
  fetch: Callable[[Any], Any] = lambda state: state
  put: Callable[[Any], Any] = lambda state: state


def run(steps: Steps, state: Any, checkpointer: Checkpointer) -> Any:
  """Takes all steps that are left after the newest checkpoint, or after the start.

  `Steps.step` itself skips an update that is not finite, and counts it in the state's `Health`.
  After three such updates in a row the loop goes back to the state that was saved last, and goes on
  at half the learning rates. A state right after a skipped update is not saved.

  Args:
    steps: the functions of which the loop is made.
    state: the state before the first step, as `Steps.fetch` returns it.
    checkpointer: saves the state, and restores the state that an earlier process saved.

  Returns:
    The state after the last step, as `Steps.step` returns it.

  Raises:
    Diverged: where updates are still not finite after three roll-backs, or none was finite.
    Preempted: where the process was asked to stop; the state is saved.
  """
  done, state = checkpointer.restore(state) or (0, state)
  in_a_row, state = steps.health(state).in_a_row, steps.put(state)
  steps.reached(done, state)
  while not steps.finished(done, state) or must_roll_back(in_a_row):
    if must_roll_back(in_a_row):
      done, saved = roll_back(steps, done, steps.fetch(state), checkpointer)
      checkpointer.save(done, saved)
      in_a_row, state = steps.health(saved).in_a_row, steps.put(saved)
      steps.reached(done, state)
      continue
    for given in steps.inputs(done):
      # This reads a number from the previous step, and so waits until the devices are done with
      # it. The wait comes here because the next step's input has been prepared meanwhile.
      if must_roll_back(in_a_row):
        break
      state, in_a_row = steps.step(state, given)
      done += 1
      checkpointer.maybe_save(
        done,
        lambda now=state: steps.fetch(now),
        lambda skipped=in_a_row: is_finite(skipped),
      )
      steps.reached(done, state)
      if steps.finished(done, state):
        break
  checkpointer.finish(done, lambda: steps.fetch(state))
  if done:
    refuse_if_all_skipped(steps.what, done, steps.health(state).finite)
  return state


def roll_back(steps: Steps, done: int, state: Any, checkpointer: Checkpointer) -> tuple[int, Any]:
  """Returns the state that was saved last, with half the learning rates.

  Where networks are trained side by side, all of them go back. Only those that were not finite get
  lower learning rates; the other networks take the same steps again.

  Args:
    steps: the functions of which the loop is made.
    done: number of steps that the loop has done.
    state: the current state, fetched; where nothing was saved, the loop goes on from this state.
    checkpointer: restores the state.

  Returns:
    The number of steps done at the state, and the fetched state with its new health.

  Raises:
    Diverged: where the loop was rolled back three times already.
  """
  health = steps.health(state)
  bad = np.asarray(health.in_a_row) >= IN_A_ROW
  if (np.asarray(health.rollbacks)[bad] >= ROLLBACKS).any():
    raise Diverged(
      f"{steps.what} is not finite: {IN_A_ROW} updates in a row up to step {done} gave NaN or "
      f"infinity, after {ROLLBACKS} roll-backs, each at half the learning rates (now "
      f"{np.asarray(health.rate)[bad].min():g} of those configured): look at the metrics before "
      "it, at the images and at the weights, and configure lower learning rates"
    )
  done, saved = checkpointer.restore(state, done) or (done, state)
  health = health.replace(
    rate=jnp.where(bad, health.rate / 2, health.rate),
    in_a_row=jnp.zeros_like(health.in_a_row),
    rollbacks=health.rollbacks + bad,
    finite=steps.health(saved).finite,
  )
  return done, steps.with_health(saved, health)
