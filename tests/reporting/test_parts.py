"""Tests of what the report is made of: explanations, drawings, lanes and differences."""

import itertools
import os
import re
from xml.etree import ElementTree

import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax import reporting
from gatprune_jax.channels import explained, measure_compensation
from gatprune_jax.reporting import EXPLANATION, explain, write_explanation
from gatprune_jax.reporting.explanation import read_explanation
from gatprune_jax.reporting.sections.network import lanes_of, shortened
from gatprune_jax.reporting.sections.settings import differences
from gatprune_jax.runs.drawing import series_style, svg
from tests.channels.test_compensation import perceptron, perceptron_variables


def test_an_explanation_by_hand(tmp_path):
  rng = np.random.default_rng(0)
  variables, x = perceptron_variables(rng), rng.standard_normal((50, 6)).astype(np.float32)
  graph = gp.trace(perceptron, variables, x[:2])
  mask = np.arange(graph.num_channels) % 3 > 0  # of 10 channels 6 are kept, of 8 then 6
  magnitude = -np.arange(graph.num_channels, dtype=float)  # the first channels are the largest
  compensation = measure_compensation(graph, perceptron, variables, x)
  found = explain(graph, mask, magnitude, compensation)
  first, second = found.groups
  assert (first.width, first.num_kept, second.width, second.num_kept) == (10, 6, 8, 6)
  assert first.place == list(range(10))
  assert [first.kept_by_magnitude(index) for index in range(10)] == [True] * 6 + [False] * 4
  share = explained(compensation, mask)
  np.testing.assert_allclose([*first.explained, *second.explained], share, atol=1e-6)
  # The layers are 6 x 10, 10 x 8 and 8 x 3, of which 6 x 6, 6 x 6 and 6 x 3 are left.
  told = [(layer.reads, layer.writes, layer.macs, layer.kept_macs) for layer in found.layers]
  assert told == [([], [0], 60, 36), ([0], [1], 80, 36), ([1], [], 24, 18)]
  assert sum(layer.kept_macs for layer in found.layers) == gp.macs(graph, mask)
  path = str(tmp_path / EXPLANATION)
  assert read_explanation(path) is None
  write_explanation(path, found)
  assert read_explanation(path) == found


def test_what_no_kernel_reads_has_no_share(tmp_path):
  # Queries and keys are contracted with each other, so that no kernel reads their channels.
  fn = lambda v, x: ((x @ v["q"]) @ (x @ v["k"]).swapaxes(1, 2)).sum(2) @ v["b"]
  rng = np.random.default_rng(0)
  shapes = {"q": (3, 4), "k": (3, 4), "b": (5, 2)}
  variables = {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
  x = rng.standard_normal((20, 5, 3)).astype(np.float32)
  graph = gp.trace(fn, variables, x[:2])
  compensation = measure_compensation(graph, fn, variables, x)
  assert np.isnan(explained(compensation, np.array([1, 0, 1, 1]))).all()
  found = explain(graph, np.array([1, 0, 1, 1]), np.arange(4.0), compensation)
  assert found.groups[0].explained == [None] * 4
  write_explanation(str(tmp_path / EXPLANATION), found)
  assert read_explanation(str(tmp_path / EXPLANATION)) == found


def test_lanes_do_not_meet_and_are_as_few_as_can_be():
  spans = list(itertools.combinations_with_replacement(range(4), 2))
  rng = np.random.default_rng(0)
  for _ in range(50):
    some = [spans[i] for i in rng.integers(0, len(spans), 6)]
    lanes = lanes_of(some)
    for (a, b), (c, d) in itertools.combinations(zip(some, lanes, strict=True), 2):
      assert b != d or a[1] < c[0] or c[1] < a[0]
    most = max(sum(first <= place <= last for first, last in some) for place in range(4))
    assert max(lanes) + 1 == most


def test_names_lose_what_most_have_and_stay_short():
  assert shortened("params/stage1_0/conv1/kernel") == "stage1_0/conv1"
  assert shortened("conv/kernel/value") == "conv"
  assert shortened("params/" + "block/" * 9 + "conv/kernel") == "…" + ("block/" * 9 + "conv")[-31:]


def test_differences_by_hand():
  config = {"a": 1, "b": {"c": 2, "d": 3}, "e": {"f": 4}}
  assert list(differences(config, {"a": 1, "b": {"c": 2, "d": 0}, "e": {}})) == [
    ("b.d", 3, 0), ("e.f", 4, None)
  ]  # fmt: skip


def test_a_drawing_is_named_described_and_in_the_page_colours():
  def paint(figure):
    axis = figure.subplots()
    for place in range(6):
      axis.plot([0, 1], [place, 0], label=f"series {place}", **series_style(place))
    axis.set_xlabel("words <&> $x")
    axis.legend()

  text = svg(paint, "name", "title <&>", "told", 3.0)
  root = ElementTree.fromstring(text)
  assert root.tag == "svg"
  assert root.attrib["role"] == "img"
  told = {element.get("id"): element.text for element in root.iter() if element.get("id")}
  assert [told[name] for name in root.attrib["aria-labelledby"].split()] == ["title <&>", "told"]
  assert all(name.startswith("name-") for name in told)
  assert set(re.findall(r"url\(#([^)]*)\)|href=\"#([^\"]*)", text)) <= {
    pair for name in told for pair in ((name, ""), ("", name))
  }
  assert "words <&> $x" in [element.text for element in root.iter()]
  assert not re.search("#[0-9a-f]{6}", text)  # every colour is one of the page's
  assert set(re.findall(r"var\((--series-\d)\)", text)) == {f"--series-{k}" for k in range(1, 7)}
  assert "font-family" not in text
  assert "<style" not in text
  assert text == svg(paint, "name", "title <&>", "told", 3.0)


def test_series_can_be_told_apart_without_colours():
  styles = [series_style(place) for place in range(36)]
  assert len({(style["marker"], style["linestyle"]) for style in styles}) == 36


def luminance(colour):
  """Returns the relative luminance of "#rrggbb" as WCAG 2 defines it."""
  channels = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
  linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
  return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("scheme", [0, 1])
def test_the_colours_have_enough_contrast(scheme):
  path = os.path.join(os.path.dirname(reporting.__file__), "template", "colours.css")
  with open(path) as file:
    blocks = re.findall(r":root \{([^}]*)\}", file.read())
  assert len(blocks) == 2  # light and dark
  colours = dict(re.findall(r"--([\w-]+): (#\w+)", blocks[scheme]))
  for paper in ("paper", "soft"):
    for name in ("ink", "muted", *(f"series-{k}" for k in range(1, 7))):
      bright, dim = sorted((luminance(colours[name]), luminance(colours[paper])))[::-1]
      assert (bright + 0.05) / (dim + 0.05) >= 4.5, (name, paper)
