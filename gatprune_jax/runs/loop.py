"""The loop of searches and trainings: restore, step, skip or roll back, save, finish."""

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
  """What a loop repeats. A state is a tree of arrays; `fetch` gives it the form that is saved.

  Attributes:
    what: the loop's name in reports, such as "the search".
    finished: (number of steps done, state) -> whether they are all.
    inputs: step -> what the steps from there on read, in order. It may end early, at the end of an
      epoch for example, and is then asked again.
    step: (state, one input) -> (the next state, how many steps in a row were skipped). It may
      return before the devices are done, and may reuse the state's memory.
    health: finds the health in a state, on the host.
    with_health: a fetched state with another health.
    reached: called with the number of steps done and the state where the loop begins, after each
      step once its state was offered to be saved, and where the loop goes on after a roll-back.
    fetch: a state as it is saved and handed to `with_health`.
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
  """Makes all steps, from the first or from the newest one that the checkpointer holds.

  A step whose numbers are not finite is skipped by the step itself, which counts it in the state's
  `Health`. After three such steps in a row the loop goes back to what was saved last, and goes on
  at half the learning rates. States after a skipped step are not saved.

  Args:
    steps: what is repeated.
    state: before the first step, as `Steps.fetch` returns it.
    checkpointer: where the state is saved, and was saved.

  Returns:
    The state after the last step, as `Steps.step` returns it.

  Raises:
    Diverged: where there is nothing left to go back to, or all steps were skipped.
    Preempted: where the checkpointer was asked to stop; the state is saved.
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
      # This waits for the step before. By now its successor's input is prepared already.
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
  """Where a loop goes on: from the last state saved, at half the learning rates.

  Of loops side by side all go back, and those that were finite make the same steps again.

  Args:
    steps: of the loop.
    done: how many steps it has made.
    state: as it is now, fetched; where nothing was saved, the loop goes on from this.
    checkpointer: where it is saved.

  Returns:
    The number of steps done there, and the state, with its new health.

  Raises:
    Diverged: where it went back three times already.
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
