"""Tests that the figures in the repository are what their command draws from the stored rows."""

import json
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from experiments.figures import draw
from gatprune_jax import InputError
from tests.reporting.browser import executable, open_page

RESULTS = "experiments/results"
NAMES = ("method", "front")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
  """Returns the directory of figures that were drawn just now."""
  directory = tmp_path_factory.mktemp("figures")
  draw("cifar16_before", str(directory))
  return directory


def texts(path):
  """Returns every text of a figure, with its title and its description."""
  root = ElementTree.parse(path).getroot()
  return [element.text for element in root.iter()
          if element.tag.rpartition("}")[2] in ("text", "title", "desc")]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_figure_is_that_of_the_rows(drawn, name):
  # Versions of matplotlib may place things otherwise, but they write the same numbers.
  stored = texts(os.path.join(RESULTS, f"{name}.svg"))
  assert stored == texts(drawn / f"{name}.svg")
  assert len(stored) > 10


def test_the_front_is_described_by_its_numbers(drawn):
  rows = json.loads(Path(RESULTS, "cifar16_before", "compare.json").read_text())
  scores = [
    row["test_accuracy"] for row in rows if (row["method"], row["budget"]) == ("agent", 0.5)
  ]
  (told,) = [text for text in texts(drawn / "front.svg") if text.startswith("agent at")]
  assert f"agent at 0.5: {100 * sum(scores) / len(scores):.1f} %;" in told


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_needs_no_other_file(name):
  with open(os.path.join(RESULTS, f"{name}.svg"), encoding="utf-8") as file:
    content = file.read()
  assert "prefers-color-scheme: dark" in content
  addresses = re.findall(r"(?:https?|file|data):[^\"' )]*", content)
  assert set(addresses) == {"http://www.w3.org/2000/svg"}
  assert set(re.findall(r"var\((--[\w-]+)\)", content)) <= set(re.findall(r"(--[\w-]+):", content))


@pytest.mark.skipif(executable() is None, reason="no browser is installed")
def test_figures_are_shown_light_and_dark_at_any_width(tmp_path):
  page_path = tmp_path / "page.html"
  for name in NAMES:
    shutil.copy(os.path.join(RESULTS, f"{name}.svg"), tmp_path)
  images = "".join(f'<img src="{name}.svg" style="max-width: 100%">' for name in NAMES)
  page_path.write_text(f"<!doctype html><body style='margin: 0'>{images}</body>")
  with open_page(tmp_path / "profile") as page:
    for width in (800, 390):
      shots = []
      for dark in (False, True):
        page.show(page_path, width, dark)
        sizes = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.width, i.height])")
        assert page.complaints() == []
        for natural, shown, high in sizes:
          assert natural == 720
          assert shown == min(width, 720)
          assert 0 < high < shown
        page.screenshot(tmp_path / "shot.png")
        shots.append((tmp_path / "shot.png").read_bytes())
      assert shots[0] != shots[1]


def test_rows_that_cannot_be_drawn_are_named(tmp_path):
  with pytest.raises(InputError, match=r"table 'digits_19' has no rows in .*: name one"):
    draw("digits_19", str(tmp_path))
  with pytest.raises(InputError, match="table 'cifar10_cpu' has no row of agent on a ResNet-8 at"):
    draw("cifar10_cpu", str(tmp_path))
  done = subprocess.run(
    [sys.executable, "-m", "experiments.figures", "stray"], capture_output=True, text=True,
    check=False,
  )  # fmt: skip
  assert done.returncode == 1
  assert done.stderr.splitlines()[-1].startswith("error: argument 'stray' is not a flag")
