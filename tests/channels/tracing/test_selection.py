"""Tests of keep, freeze and only, by which a user selects variables by name."""

import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels.tracing.selection import matching

PATHS = ["params/stage1_0/conv1/kernel", "params/stage1_0/conv2/kernel", "params/stem/kernel"]


@pytest.mark.parametrize(
  ("pattern", "expected"),
  [
    ("stem", [2]),
    ("params/stem/kernel", [2]),
    ("conv1", [0]),
    ("stage1_*", [0, 1]),
    ("stage1_*/conv[23]", [1]),
    ("kernel", [0, 1, 2]),
    (("stem", "conv2"), [1, 2]),
    ((), []),
  ],
)
def test_patterns_match_runs_of_whole_components(pattern, expected):
  assert matching(PATHS, pattern, "keep") == expected


def test_every_unknown_pattern_is_named_with_what_is_near():
  with pytest.raises(
    gp.InputError, match=r"freeze: no variable matches 'ste', 'stage9'; near are .*stem"
  ):
    matching(PATHS, ["stem", "ste", "stage9"], "freeze")


def widths(e, **selection):
  graph = gp.trace(e.eval_fn, e.variables, e.x, **selection)
  return {group.name.removeprefix("params/"): len(group.channels) for group in graph.groups}


DENSE = {
  "stem/kernel": 4, "stage1_0/conv1/kernel": 4, "stage2_0/conv1/kernel": 6,
  "stage2_0/conv2/kernel": 6, "stage3_0/conv1/kernel": 8, "stage3_0/conv2/kernel": 8,
}  # fmt: skip


def without(*names):
  return {name: width for name, width in DENSE.items() if name not in names}


def test_keep_holds_what_a_layer_produces_but_not_what_it_reads(example_b):
  assert widths(example_b) == DENSE
  conv1 = "stage2_0/conv1/kernel"
  assert widths(example_b, keep="stage2_0/conv1") == without(conv1)
  assert widths(example_b, keep=conv1) == without(conv1)
  # The stem also produces the stream of stage 1, so keeping conv2 keeps the channels of the stem.
  assert widths(example_b, keep="stage1_0/conv2") == without("stem/kernel")


def test_freeze_holds_every_axis_of_a_variable(example_b):
  conv1 = "stage2_0/conv1/kernel"
  assert widths(example_b, freeze=conv1) == without(conv1, "stem/kernel")
  graph = gp.trace(example_b.eval_fn, example_b.variables, example_b.x, freeze=conv1)
  assert graph.frozen[f"params/{conv1}"] == "axis 2: named by freeze, axis 3: named by freeze"


def test_only_prunes_exactly_what_the_layers_produce(example_b):
  assert widths(example_b, only="conv1") == without(
    "stem/kernel", "stage2_0/conv2/kernel", "stage3_0/conv2/kernel"
  )
  assert widths(example_b, only=["stem", "stage3_0/conv1"], keep="stem") == {
    "stage3_0/conv1/kernel": 8
  }


def test_selections_that_cannot_be_are_refused(example_b):
  with pytest.raises(gp.InputError, match="only: params/head/bias are not kernels"):
    widths(example_b, only="head/bias")
  with pytest.raises(gp.InputError, match="no channel of this network can be removed"):
    widths(example_b, keep="params")
  with pytest.raises(gp.InputError, match="keep: no variable matches 'stage4'"):
    widths(example_b, keep="stage4")


def test_a_frozen_network_still_obeys_the_law(example_b):
  e = example_b
  graph = gp.trace(e.eval_fn, e.variables, e.x, keep="stem", freeze="stage3_0/conv2")
  mask = np.arange(graph.num_channels) % 2 == 0
  small = gp.compact(graph, e.eval_fn, e.variables, mask)
  shape = small.variables["params"]["stage3_0"]["conv2"]["kernel"].shape
  assert shape == e.variables["params"]["stage3_0"]["conv2"]["kernel"].shape


def test_only_leaves_layers_alone_whose_kernel_is_no_variable():
  a, b = np.ones((3, 4)), np.ones((4, 5))
  fn = lambda v, x: jnp.tanh(jnp.tanh(jnp.tanh(x @ a) @ b) @ v["h"]) @ v["o"]
  graph = gp.trace(fn, {"h": np.ones((5, 6)), "o": np.ones((6, 2))}, np.ones((2, 3)), only="h")
  assert [(group.name, len(group.channels)) for group in graph.groups] == [("h", 6)]


def shared_kernel(v, x):
  y = jnp.tanh(jnp.tanh(x @ v["w"]) @ v["t"])
  return jnp.tanh(y @ v["t"].T) @ v["h"]


@pytest.mark.parametrize(
  ("selection", "expected"),
  [({}, [6, 7]), ({"keep": "t"}, []), ({"only": "t"}, [6, 7]), ({"only": "w"}, [6])],
)
def test_a_kernel_of_two_layers_stands_for_both(selection, expected):
  variables = {"w": jnp.ones((3, 6)), "t": jnp.ones((6, 7)), "h": jnp.ones((6, 2))}
  if expected:
    graph = gp.trace(shared_kernel, variables, jnp.ones((1, 3)), **selection)
    assert [len(group.channels) for group in graph.groups] == expected
  else:
    with pytest.raises(gp.InputError, match="no channel of this network can be removed"):
      gp.trace(shared_kernel, variables, jnp.ones((1, 3)), **selection)


def test_every_pattern_of_only_names_a_layer():
  fn = lambda v, x: jnp.tanh(jnp.tanh(x @ v["w"]) @ (v["k"] * 0.5)) @ v["h"]
  variables = {"w": jnp.ones((3, 6)), "k": jnp.ones((6, 7)), "h": jnp.ones((7, 2))}
  with pytest.raises(gp.InputError, match="only: k are not kernels that produce channels"):
    gp.trace(fn, variables, jnp.ones((1, 3)), only=["w", "k"])


@pytest.mark.parametrize("patterns", [3, [3], {"w": 1}])
def test_patterns_are_words(patterns):
  with pytest.raises(gp.InputError, match=r"keep is .*: give a pattern, or a list of patterns"):
    matching(PATHS, patterns, "keep")
