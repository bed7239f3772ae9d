"""A learner added from outside: REINFORCE with the batch's mean utility as its baseline."""

import jax
import optax

from gatprune_jax.agent.learner import LEARNERS, Learner, LearnerState

NAME = "reinforce"


def reinforce(config, actor):
  optimizer = optax.adam(config.ppo.learning_rate)

  def init(key, inputs):
    params = actor.init(key, inputs)
    return LearnerState(params, optimizer.init(params))

  def act(state, inputs, num, key):
    return actor.act(state.params, inputs, num, key)

  def update(state, inputs, experience, rate):
    advantage = experience.utility - experience.utility.mean()

    def loss_fn(params):
      log_prob = actor.distribution(params, inputs, experience.actions).log_prob(experience.actions)
      return -(advantage[:, None] * log_prob).mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state)
    updates = jax.tree.map(lambda leaf: rate * leaf, updates)
    return LearnerState(optax.apply_updates(state.params, updates), opt_state), {"loss": loss}

  return Learner(init, act, update)


def add(setitem):
  setitem(LEARNERS, NAME, reinforce)
