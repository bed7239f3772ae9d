"""Tests of training one network, and many networks side by side."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import compact_variables
from gatprune_jax.data import Split
from gatprune_jax.networks import CLASSIFICATION, Network, compact_network, masked_network
from gatprune_jax.runtime import compilation
from gatprune_jax.training import (
  Batch,
  Recipe,
  init_train_state,
  make_optimizer,
  train,
  train_candidates,
  train_step,
  training_loss,
)

RECIPE = Recipe(
  epochs=3, batch_size=4, learning_rate=0.05, warmup_epochs=1.0, momentum=0.9, weight_decay=1e-3,
  label_smoothing=0.1, shift=1, flip=True, crop_area=1.0, mixup=0.0, average=0.0,
  distillation=0.0, temperature=2.0,
)  # fmt: skip


def test_one_step_by_hand():
  # There is one weight w = 0, with logits (w, 0) and label 0, so loss = log 2 and
  # dloss/dw = 1/2 - 1 = -1/2. A Nesterov step from rest moves w by lr (1 + momentum) |gradient|.
  # The weight does not have two axes, so there is no weight decay.
  def train_fn(variables, x):
    w = jnp.broadcast_to(variables["params"]["w"], (x.shape[0],))
    return jnp.stack([w, jnp.zeros_like(w)], axis=1), {}

  recipe = dataclasses.replace(RECIPE, warmup_epochs=0.0, learning_rate=0.1, label_smoothing=0.0)
  optimizer = make_optimizer(recipe, 10)
  variables = {"params": {"w": jnp.zeros(1)}}
  network = Network(None, train_fn, variables)
  state = init_train_state(network, optimizer, variables)

  def step(**change):
    changed = dataclasses.replace(recipe, **change)
    x, y = jnp.ones((2, 1)), jnp.zeros(2, jnp.int32)
    batch = Batch(x, y, jnp.zeros((2, 2)))
    return train_step(network, CLASSIFICATION, optimizer, changed, state, batch)

  new, metrics = step()
  np.testing.assert_allclose(metrics["loss"], np.log(2), rtol=1e-6)
  np.testing.assert_allclose(new.variables["params"]["w"], [0.1 * 1.9 * 0.5], rtol=1e-5)
  # Smoothing 0.2 over two classes gives the targets (0.9, 0.1) and the gradient 1/2 - 0.9 = -0.4.
  smoothed, _ = step(label_smoothing=0.2)
  np.testing.assert_allclose(smoothed.variables["params"]["w"], [0.1 * 1.9 * 0.4], rtol=1e-5)
  # The average keeps nine tenths of its previous value, which is zero.
  averaged, _ = step(average=0.9)
  np.testing.assert_allclose(averaged.average["params"]["w"], [0.1 * 0.1 * 1.9 * 0.5], rtol=1e-5)
  assert new.average["params"]["w"] == new.variables["params"]["w"]


def test_counters_are_not_averaged():
  def train_fn(variables, x):
    logits = jnp.broadcast_to(variables["params"]["w"], (x.shape[0], 2))
    return logits, {"batch_stats": {"count": variables["batch_stats"]["count"] + 1}}

  recipe = dataclasses.replace(RECIPE, average=0.9)
  optimizer = make_optimizer(recipe, 10)
  variables = {"params": {"w": jnp.zeros(1)}, "batch_stats": {"count": jnp.array(4)}}
  batch = Batch(jnp.ones((2, 1)), jnp.zeros(2, jnp.int32), jnp.zeros((2, 1)))
  network = Network(None, train_fn, variables)
  state = init_train_state(network, optimizer, variables)
  state, _ = train_step(network, CLASSIFICATION, optimizer, recipe, state, batch)
  count = state.average["batch_stats"]["count"]
  assert (int(count), count.dtype) == (5, jnp.int32)


def test_distillation_by_hand():
  # The student is (0, 0), the teacher (2 log 3, 0), and T = 2. The teacher's softmax is (3, 1) / 4,
  # and the cross-entropy of the even student is log 2, times T^2 = 4. Both labels cost log 2 too.
  logits, y = jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32)
  teacher = jnp.array([[2 * np.log(3), 0.0]])
  recipe = dataclasses.replace(RECIPE, label_smoothing=0.0, distillation=0.25)
  loss = lambda logits: training_loss(CLASSIFICATION, recipe, logits, Batch(None, y, teacher))
  np.testing.assert_allclose(loss(logits), (0.75 + 0.25 * 4) * np.log(2), rtol=1e-6)
  # The gradient is 0.75 (1/2 - 1) + 0.25 * 4 * (1/2 - 3/4) / 2.
  np.testing.assert_allclose(jax.grad(loss)(logits)[0, 0], -0.5, rtol=1e-6)


def test_mixed_labels_by_hand():
  # The labels are 0 and 1 and the share is 3/4, so the targets are (3, 1) / 4 and (1, 3) / 4. The
  # logits (log 3, 0) have the softmax (3, 1) / 4. They cost 3/4 log 4/3 + 1/4 log 4 and
  # 1/4 log 4/3 + 3/4 log 4, which is log 4 - log(3) / 2 on average.
  logits = jnp.tile(jnp.array([[np.log(3), 0.0]]), (2, 1))
  recipe = dataclasses.replace(RECIPE, label_smoothing=0.0)
  batch = Batch(None, jnp.array([0, 1]), None, 0.75)
  loss = training_loss(CLASSIFICATION, recipe, logits, batch)
  np.testing.assert_allclose(loss, np.log(4) - np.log(3) / 2, rtol=1e-6)


def test_images_are_mixed_as_their_labels_are():
  # The images are one-hot labels, and the model returns images times a weight. Where images and
  # targets are mixed by the same share, the mixed images are also the targets of the loss.
  x = np.eye(2, dtype=np.float32)[:, None, None]
  seen = []

  def train_fn(variables, x):
    jax.debug.callback(lambda images: seen.append(np.asarray(images)[:, 0, 0]), x)
    return x[:, 0, 0] * variables["params"]["w"], {}

  recipe = dataclasses.replace(
    RECIPE, epochs=4, batch_size=2, warmup_epochs=0.0, mixup=0.5, shift=0, flip=False,
    learning_rate=1e-9, label_smoothing=0.0,
  )  # fmt: skip
  losses = []
  network = Network(None, train_fn, {"params": {"w": jnp.ones(())}})
  train(
    network, CLASSIFICATION, Split(x, np.array([0, 1], np.int32)), recipe, jax.random.key(0),
    lambda epoch, metrics, variables: losses.append(metrics["loss"]),
  )  # fmt: skip
  jax.effects_barrier()
  for images, loss in zip(seen, losses, strict=True):
    share = images.max(1)
    np.testing.assert_allclose(images.sum(1), 1, rtol=1e-6)
    log_p = images - np.log(np.exp(images).sum(1, keepdims=True))
    np.testing.assert_allclose(loss, -(images * log_p).sum(1).mean(), rtol=1e-5)
    assert 0.5 <= share[0] <= 1
  assert len(set(losses)) == 4


def test_distillation_imitates_the_teacher(example_b):
  # With the whole weight of the loss on the teacher, training does not read the labels.
  e = example_b
  recipe = dataclasses.replace(RECIPE, distillation=1.0)
  one, other = (
    train(e.network, CLASSIFICATION, Split(e.x, y), recipe, jax.random.key(0), teacher=e.network)
    for y in (e.y, (e.y + 1) % 5)
  )
  jax.tree.map(np.testing.assert_array_equal, one, other)
  with pytest.raises(gp.InputError, match="no teacher is given"):
    train(e.network, CLASSIFICATION, Split(e.x, e.y), recipe, jax.random.key(0))


def test_the_weights_of_a_teacher_are_no_constants_of_the_program(example_b, monkeypatch):
  # As constants they would make the program of a large network large, and one of its own for each.
  e, texts = example_b, []
  compile_step = compilation.jit

  def and_tell(fn, **options):
    compiled = compile_step(fn, **options)

    def call(*args):
      texts.append(compiled.lower(*args).as_text())
      return compiled(*args)

    return call

  monkeypatch.setattr(compilation, "jit", and_tell)
  recipe = dataclasses.replace(RECIPE, epochs=2, batch_size=12, distillation=0.5)
  for factor in (1, 2):
    variables = jax.tree.map(lambda leaf, f=factor: f * leaf, e.variables)
    teacher = e.network.with_variables(variables)
    train(e.network, CLASSIFICATION, Split(e.x, e.y), recipe, jax.random.key(0), teacher=teacher)
  assert len(texts) == 4  # two steps with each teacher
  assert len(set(texts)) == 1


def test_decay_spares_vectors():
  optimizer = make_optimizer(dataclasses.replace(RECIPE, warmup_epochs=0.0), 10)
  params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones(2)}
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(zeros, optimizer.init(params), params)
  assert (updates["kernel"] < 0).all()
  np.testing.assert_array_equal(updates["scale"], np.zeros(2))


def test_training_learns(example_b):
  e = example_b
  fit = dataclasses.replace(RECIPE, epochs=30, label_smoothing=0.0, shift=0, flip=False)
  losses = []
  variables = train(
    e.network, CLASSIFICATION, Split(e.x, e.y), fit, jax.random.key(0),
    lambda epoch, metrics, variables: losses.append(metrics["loss"]),
  )  # fmt: skip
  assert losses[-1] < 0.2 * losses[0]
  logits, _ = e.train_fn(variables, e.x)
  assert CLASSIFICATION.score(logits, e.y).mean() > 0.9


@pytest.mark.parametrize("backend", ["cpu", pytest.param("gpu", marks=pytest.mark.long)])
def test_candidates_side_by_side_equal_each_alone(example_b, backend, monkeypatch):
  # With the backend "gpu", the code path for accelerators runs on the CPU.
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  e = example_b
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  masks = np.random.default_rng(0).random((3, graph.num_channels)) < 0.6
  masks[:, [group.channels[0] for group in graph.groups]] = True
  split, key = Split(e.x, e.y), jax.random.key(5)
  together = train_candidates(
    graph, e.network, CLASSIFICATION, jnp.asarray(masks), split, RECIPE, key
  )
  for index, mask in enumerate(masks):
    alone = train(masked_network(graph, e.network, mask), CLASSIFICATION, split, RECIPE, key)
    own = jax.tree.map(lambda leaf, i=index: leaf[i], together)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4),
      compact_variables(graph, own, mask), compact_variables(graph, alone, mask),
    )  # fmt: skip


def test_what_candidates_do_not_compute_stays(example_b):
  # Under a single mask, training computes only the channels that the mask keeps.
  e = example_b
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  mask = np.ones(graph.num_channels, bool)
  mask[graph.groups[1].channels[1:]] = False
  trained = train_candidates(
    graph, e.network, CLASSIFICATION, mask[None], Split(e.x, e.y), RECIPE, jax.random.key(0)
  )
  for leaf, before, after in zip(
    graph.leaves, *map(jax.tree.leaves, (e.variables, trained)), strict=True
  ):
    kept = np.ix_(*(np.append(mask, True)[ids] for ids in leaf.axes))
    untouched = np.ones(leaf.shape, bool)
    untouched[kept] = False
    np.testing.assert_array_equal(after[0][untouched], before[untouched])
    assert (after[0][kept] != before[kept]).any()


def test_compact_fine_tuning_equals_masked(example_b):
  e = example_b
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  mask = np.random.default_rng(1).random(graph.num_channels) < 0.6
  mask[[group.channels[0] for group in graph.groups]] = True
  split, key = Split(e.x, e.y), jax.random.key(6)
  compact = train(compact_network(graph, e.network, mask), CLASSIFICATION, split, RECIPE, key)
  stacked = train_candidates(
    graph, e.network, CLASSIFICATION, jnp.asarray(mask[None]), split, RECIPE, key
  )
  dense = jax.tree.map(lambda leaf: leaf[0], stacked)
  cut = gp.compact(graph, e.eval_fn, dense, mask).variables
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), compact, cut)


def test_schedule_warms_up_and_ends_at_zero():
  optimizer = make_optimizer(dataclasses.replace(RECIPE, momentum=0.0, weight_decay=0.0), 30)
  params, steps = jnp.zeros(()), []
  state = optimizer.init(params)
  for _ in range(30):
    update, state = optimizer.update(jnp.ones(()), state, params)
    steps.append(-float(optax.tree.sum(update)))
  # In the first of three epochs, steps 0..10, the learning rate rises linearly from zero.
  np.testing.assert_allclose(steps[:11], 0.05 * np.arange(11) / 10, atol=1e-7)
  assert np.argmax(steps) == 10
  assert steps[-1] < 0.001


@pytest.mark.parametrize(
  ("field", "value"),
  [("epochs", 0), ("learning_rate", -0.1), ("momentum", 1.0), ("label_smoothing", 1.5),
   ("shift", -1), ("mixup", -0.1), ("crop_area", 0.0), ("crop_area", 1.5), ("average", 1.0),
   ("batch_size", 0), ("weight_decay", -1e-4), ("distillation", 1.1), ("temperature", 0.0),
   ("warmup_epochs", -1.0), ("warmup_epochs", 3.0)],
)  # fmt: skip
def test_impossible_recipes_are_refused(field, value):
  with pytest.raises(gp.InputError, match=f"{field} is {value}"):
    dataclasses.replace(RECIPE, **{field: value})


def test_a_batch_must_fit_the_split(example_b):
  e = example_b
  recipe = dataclasses.replace(RECIPE, batch_size=13)
  with pytest.raises(gp.InputError, match="batch_size 13 exceeds the 12 training images"):
    train(e.network, CLASSIFICATION, Split(e.x, e.y), recipe, jax.random.key(0))
