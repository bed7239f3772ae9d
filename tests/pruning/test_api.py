"""Tests of `prune`: networks of three frameworks, several tasks, and refused arguments."""

import dataclasses
import json
import os
import subprocess
import sys

import equinox as eqx
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.pruning import describe_space, pipeline
from tests.experiments.mains import environment
from tests.pruning.examples import EXAMPLES, FINETUNE, SEARCH, LinenNet, prune
from tests.reporting.pages import parsed


@pytest.fixture(scope="module")
def pruned():
  """Returns a function (name) -> pruned example, which prunes every example only once."""
  done = {}

  def of(name):
    if name not in done:
      done[name] = prune(name)
    return done[name]

  return of


LONG = ("segmentation", "two_heads")  # the other examples are pruned for other tests anyway


@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in EXAMPLES]
)
def test_what_is_handed_back_is_small_trained_and_as_the_table_says(pruned, name, tmp_path):
  network, data, outcome = pruned(name)
  task = EXAMPLES[name]()[2]
  assert outcome.costs["macs"] <= 0.5
  assert not outcome.mask.all()
  graph = gp.trace(network.eval_fn, network.variables, data.train.x[:1])
  ones = np.ones(graph.num_channels)
  assert outcome.costs["macs"] == gp.macs(graph, outcome.mask) / gp.macs(graph, ones)
  methods = [row.method for row in outcome.rows]
  assert methods[0] == "dense"
  assert methods[-1] == "agent"
  assert {"l1 uniform", "l1 global", "taylor global", "random uniform"} < set(methods)
  assert all(row.macs_ratio <= 0.5 for row in outcome.rows[1:])

  # The scores in the table are the scores of the returned network.
  small, test = outcome.network, data.test
  score = task.score(small.apply(small.variables, jnp.asarray(test.x)), test.y).mean()
  assert outcome.rows[-1].test_after == pytest.approx(float(score), abs=1e-5)
  dense = task.score(network.eval_fn(network.variables, jnp.asarray(test.x)), test.y).mean()
  assert outcome.rows[0].test_after == pytest.approx(float(dense), abs=1e-5)
  # The network was trained: most of the weight arrays differ from the kept part of the dense ones.
  cut = gp.compact(graph, network.eval_fn, network.variables, outcome.mask).variables
  pairs = zip(jax.tree.leaves(cut), jax.tree.leaves(small.variables), network.trains, strict=True)
  moved = [not np.array_equal(a, b) for a, b, trains in pairs if trains]
  assert np.mean(moved) > 0.5

  outcome.save(tmp_path / "out")
  loaded = gp.load(tmp_path / "out" / "network")
  expected = small.apply(small.variables, test.x)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    loaded.apply(loaded.variables, test.x), expected,
  )  # fmt: skip
  with np.load(tmp_path / "out" / "masks.npz") as masks:
    np.testing.assert_array_equal(masks["agent"], outcome.mask)
  assert json.loads((tmp_path / "out" / "rows.json").read_text())[-1]["method"] == "agent"
  assert (tmp_path / "out" / "table.md").read_text() == f"{outcome}\n"
  with pytest.raises(gp.InputError, match="exists: choose another path"):
    outcome.save(tmp_path / "out")


def test_a_network_that_runs_at_known_batch_sizes_is_saved_for_one(pruned, tmp_path):
  _, data, outcome = pruned("linen")
  eval_fn = outcome.trainable.eval_fn
  counting = lambda variables, x: eval_fn(variables, x).reshape(len(x), -1)
  outcome = dataclasses.replace(
    outcome, trainable=dataclasses.replace(outcome.trainable, eval_fn=counting)
  )
  with pytest.raises(gp.InputError, match=r"a batch of unknown size .* pass batch=8"):
    outcome.save(tmp_path / "out")
  assert list(tmp_path.iterdir()) == []
  outcome.save(tmp_path / "out", batch=4)
  loaded, x = gp.load(tmp_path / "out" / "network"), data.test.x[:4]
  np.testing.assert_allclose(
    loaded.apply(loaded.variables, x), eval_fn(outcome.trainable.variables, x), atol=1e-5
  )


def test_an_nnx_network_comes_back_as_a_module(pruned):
  _, data, outcome = pruned("nnx")
  module = outcome.module
  assert isinstance(module, nnx.Module)
  assert module.conv1.kernel.shape[-1] == outcome.mask[:6].sum() == module.norm.mean.shape[0]
  module.eval()
  expected = outcome.network.apply(outcome.network.variables, data.test.x)
  np.testing.assert_allclose(module(data.test.x), expected, atol=1e-5)
  module.train()  # in train mode, dropout draws anew in each call
  assert (module(data.test.x) != module(data.test.x)).any()


def test_an_equinox_network_comes_back_as_module_and_state(pruned):
  _, data, outcome = pruned("equinox")
  module, state = outcome.module
  assert module.conv1.weight.shape[0] == outcome.mask[:6].sum()
  module = eqx.nn.inference_mode(module)
  over_batch = {"in_axes": (0, None), "out_axes": (0, None), "axis_name": "batch"}
  logits, _ = jax.vmap(module, **over_batch)(data.test.x, state)
  expected = outcome.network.apply(outcome.network.variables, data.test.x)
  np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_linen_has_no_module_of_other_shapes(pruned):
  assert pruned("linen")[2].module is None


def test_what_does_not_train_keeps_its_own_law(pruned):
  # The running mean follows the rule of the train function, not the gradients.
  network, data, outcome = pruned("regression")
  index = [path for path in network.variables].index("mean")
  assert not network.trains[index]
  small = outcome.trainable
  x = jnp.asarray(data.train.x[:8])
  _, (mean,) = small.forward_train(small.variables, x)
  hidden = jax.nn.relu(x @ small.variables["a"]) @ small.variables["b"]
  np.testing.assert_allclose(
    mean, 0.9 * small.variables["mean"] + 0.1 * hidden.mean(0), rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize(
  "name",
  [
    pytest.param("equinox", marks=pytest.mark.long),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("linen", "nnx")),
  ],
)
def test_one_device_and_two_give_the_same(name, tmp_path):
  results = []
  for devices in (1, 2):
    path = str(tmp_path / f"{devices}.npz")
    command = [sys.executable, "-m", "tests.pruning.examples", path, name]
    done = subprocess.run(
      command, env=environment(devices), capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    with np.load(path) as file:
      results.append(dict(file))
  assert results[0].keys() == results[1].keys()
  for key, values in results[0].items():
    np.testing.assert_allclose(results[1][key], values, rtol=1e-4, atol=1e-5, err_msg=key)


def test_a_workdir_continues_and_refuses_others(tmp_path, monkeypatch):
  _, _, first = prune("linen", workdir=tmp_path / "run")
  written = {"config.json", "metrics.jsonl", "proposals.npz", "result.json", "explained.json"}
  assert written | {"report.html"} <= set(os.listdir(tmp_path / "run"))
  assert ["plan.search.updates", "2", "100"] in parsed(tmp_path / "run" / "report.html").tables[-2]
  monkeypatch.setattr(pipeline, "search", None)  # the second call must not search again
  os.remove(tmp_path / "run" / "report.html")
  _, _, again = prune("linen", workdir=tmp_path / "run")
  assert (tmp_path / "run" / "report.html").exists()
  np.testing.assert_array_equal(first.mask, again.mask)
  assert first.rows == again.rows
  for a, b in zip(*(jax.tree.leaves(p.network.variables) for p in (first, again)), strict=True):
    np.testing.assert_array_equal(a, b)
  with pytest.raises(gp.InputError, match=r"plan.seed is 0, here it is 1"):
    prune("linen", workdir=tmp_path / "run", seed=1)
  with pytest.raises(gp.InputError, match="holds another config's run"):
    prune("nnx", workdir=tmp_path / "run")


def test_it_tells_what_there_is_to_search(capsys):
  network, data, _ = EXAMPLES["linen"]()
  options = {"search": SEARCH, "finetune": FINETUNE, "criteria": ("l1",)}
  gp.prune(network, data, {"macs": 0.5, "activation_bytes": "500B"}, **options)
  told = capsys.readouterr().err
  # The groups have 6 and 5 channels, and each keeps at least one channel, which makes
  # (2^6 - 1) (2^5 - 1) = 1,953 masks.
  assert "11 channels in 2 groups, of 5 to 6 channels; about 10^3 masks" in told
  # The convolutions have 3 x 3 positions. With a and b channels the network has
  # 9 (2 a 9 + a b 9) + 3 b MACs: 3,417 in the dense network, and 246 at least.
  assert "macs: dense 3.42k MACs, smallest reachable 246 (0.0720), budget 1.71k (0.5)" in told
  # While the second convolution runs, the input has 72 numbers in memory, its own input 9 a and its
  # result 9 b: 684 bytes, and 360 at least.
  assert "activation_bytes: dense 684 bytes, smallest reachable 360 (0.5263), budget 500" in told
  assert "the budgets do not contradict each other: the smallest network is within all" in told
  assert "warning" not in told
  for line in ("search update 2/2", "fine-tune 4 networks, epoch 2/2"):
    assert line in told


@pytest.mark.parametrize(
  ("limits", "words"),
  [
    ({"macs": 0.08}, "warning: the budget 0.08 for macs is so near the smallest reachable share"),
    ({"macs": 0.99}, "warning: the budget 0.99 for macs is so near the dense network that"),
    ({"macs": 1.0, "params": 1.0}, "warning: every budget is 1, which constrains nothing"),
    ({"macs": 0.1}, ""),
    ({"macs": 0.97, "params": 1.0}, ""),
  ],
)
def test_budgets_that_leave_nothing_to_search_are_warned_of(limits, words):
  network, data, _ = EXAMPLES["linen"]()  # the smallest reachable share is 0.0720
  graph = gp.trace(network.eval_fn, network.variables, data.train.x[:1])
  told = describe_space(gp.make_constraints(graph, limits))
  warned = [line for line in told.splitlines() if line.startswith("warning")]
  assert len(warned) == bool(words)
  assert words in "".join(warned)


def change(name, **fields):
  network, data, task = EXAMPLES[name]()
  return dataclasses.replace(network, **fields), data, task


def test_functions_of_the_wrong_signature_are_refused():
  network, data, _ = change("linen", eval_fn=lambda x: x)
  with pytest.raises(gp.InputError, match=r"apply_fn\(variables, x\) fails with TypeError"):
    gp.prune(network, data, {"macs": 0.5})
  network, data, _ = change("linen", train_fn=lambda variables, x, key: (x, {}))
  with pytest.raises(gp.InputError, match=r"train_fn\(variables, x\) fails with TypeError"):
    gp.prune(network, data, {"macs": 0.5}, search=SEARCH, finetune=FINETUNE)


@pytest.mark.parametrize(
  ("train_fn", "words"),
  [
    (lambda v, x: x, "train_fn returns one array of shape .*: it must return the outputs and the"),
    (lambda v, x: (x, {}, {}), "train_fn returns 3 values: it must return"),
    (lambda v, x: (x, {"batch_stats": {"mean": x}}), "are not the network's variables"),
    (lambda v, x: (x, None), "are not the network's variables"),
    (lambda v, x: (x, jax.tree.map(lambda leaf: leaf + 1, v)), "changes variable params/.*which t"),
  ],
)
def test_a_train_function_that_returns_no_state_is_refused(train_fn, words):
  network, data, _ = change("linen", train_fn=train_fn)
  with pytest.raises(gp.InputError, match=words):
    gp.prune(network, data, {"macs": 0.5}, search=SEARCH, finetune=FINETUNE)


def test_data_that_do_not_fit_are_refused():
  with pytest.raises(gp.InputError, match=r"y has shape \(5,\) and x \(6, 4\): both must begin"):
    gp.data.arrays(np.ones((6, 4)), np.zeros(5, int))
  with pytest.raises(gp.InputError, match="x holds values that are NaN or infinite"):
    gp.data.arrays(np.full((6, 4), np.nan), np.zeros(6, int))
  network, data, _ = EXAMPLES["linen"]()
  bad = data._replace(select=data.select._replace(y=data.select.y + 1))
  with pytest.raises(
    gp.InputError, match="y has label 3, which is out of range: the network's 3 l"
  ):
    gp.prune(network, bad, {"macs": 0.5}, search=SEARCH, finetune=FINETUNE)
  floats = data._replace(train=data.train._replace(y=data.train.y.astype(np.float32)))
  with pytest.raises(gp.InputError, match=r"y is float32.*classification needs one integer label"):
    gp.prune(network, floats, {"macs": 0.5}, search=SEARCH, finetune=FINETUNE)


def test_weights_that_are_not_finite_are_refused():
  network, data, _ = EXAMPLES["linen"]()
  spoilt = jax.tree.map(lambda leaf: leaf * np.nan, network.variables)
  with pytest.raises(gp.InputError, match=r"holds .* values that are NaN or infinite"):
    gp.prune(network.with_variables(spoilt), data, {"macs": 0.5})


@pytest.mark.parametrize(
  ("budgets", "words"),
  [
    (
      {"macs": 0.001},
      "budget 0.001 for macs cannot be reached: .* smallest reachable share is 0.0",
    ),
    (
      {"energy": 0.5},
      "budget for 'energy': unknown resource, choose from activation_bytes, latency, macs",
    ),
    ({"macs": "5ms"}, "budget 5ms for macs has the unknown unit 'ms': choose from k, M, G, MACs"),
    ({"weight_bytes": "8B"}, "budget 8B for weight_bytes cannot be reached: .* has 156 of the"),
    ({}, "no budget given"),
    (0.5, "budgets is of type float: give a dict such as"),
  ],
)
def test_budgets_that_cannot_be_are_refused(budgets, words):
  network, data, _ = EXAMPLES["linen"]()
  with pytest.raises(gp.InputError, match=words):
    gp.prune(network, data, budgets)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (
      {"loss": lambda out, y: ((out - y) ** 2).mean()},
      r"loss has shape \(\) for 32 examples: it m",
    ),
    ({"score": lambda out, y: out}, r"score has shape \(32, 1\) for 32 examples"),
    ({"score": lambda out, y: jnp.log(y[:, 0] * 0)}, "score of the dense network is NaN or infin"),
    ({"score": lambda out, y: (y > 0)[:, 0]}, "score holds bool values: give floating-point numb"),
    ({"loss": lambda out, y: out["a"]}, r"task's loss\(outputs, targets\) fails with"),
  ],
)
def test_tasks_that_are_not_per_example_or_not_finite_are_refused(changes, words):
  network, data, task = EXAMPLES["regression"]()
  with pytest.raises(gp.InputError, match=words):
    gp.prune(
      network, data, {"macs": 0.5}, task=dataclasses.replace(task, **changes), search=SEARCH,
      finetune=FINETUNE,
    )  # fmt: skip


def test_what_only_classification_knows_is_refused_for_others():
  network, data, task = EXAMPLES["regression"]()
  recipe = dataclasses.replace(FINETUNE, label_smoothing=0.1)
  with pytest.raises(gp.InputError, match=r"label_smoothing is 0.1, but the task has no smoothed"):
    gp.prune(network, data, {"macs": 0.5}, task=task, search=SEARCH, finetune=recipe)
  recipe = dataclasses.replace(FINETUNE, shift=1)
  with pytest.raises(gp.InputError, match=r"shift is 1 and flip False, but inputs of shape \(4,\)"):
    gp.prune(network, data, {"macs": 0.5}, task=task, search=SEARCH, finetune=recipe)


def test_a_network_without_anything_to_remove_is_refused():
  _, data, _ = EXAMPLES["linen"]()
  apply = lambda v, x: x.mean((1, 2)) @ v["w"]
  network = gp.Network(apply, lambda v, x: (apply(v, x), {}), {"w": np.ones((2, 3), np.float32)})
  with pytest.raises(gp.InputError, match="no channel of this network can be removed"):
    gp.prune(network, data, {"macs": 0.5})


def test_arguments_of_other_kinds_are_refused():
  network, data, _ = EXAMPLES["linen"]()
  with pytest.raises(gp.InputError, match="network is of type LinenNet: make one by from_linen"):
    gp.prune(LinenNet(), data, {"macs": 0.5})
  with pytest.raises(gp.InputError, match=r"data is of type tuple: make it by gatprune_jax.data.a"):
    gp.prune(network, (np.ones(3), np.ones(3)), {"macs": 0.5})
