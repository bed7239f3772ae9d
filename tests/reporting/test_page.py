"""Tests of the report's file: well-formed, complete, without references, and with right numbers."""

import json
import os

import numpy as np
import pytest

from experiments import report as report_main
import gatprune_jax as gp
from gatprune_jax.reporting import write_report
from gatprune_jax.reporting.page import SECTIONS
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.report import CompareRow, comparison_cells, methods_cells
from tests.reporting.pages import parsed
from tests.reporting.workdirs import DEFAULTS, METHODS, compare_run, prune_run


def sections(page):
  return [name for name in page.ids if name in SECTIONS]


@pytest.fixture(params=[prune_run, compare_run])
def workdir(request, tmp_path):
  return request.param(str(tmp_path / "run"))


def test_it_is_one_well_formed_file(workdir):
  page = parsed(write_report(workdir, DEFAULTS))
  assert len(set(page.ids)) == len(page.ids) > 20
  assert page.references
  for reference in page.references:
    assert reference.startswith("#")
    assert reference[1:] in page.ids
  levels = [int(tag[1]) for tag, _ in page.headings]
  assert levels[0] == 1
  assert levels.count(1) == 1
  assert max(np.diff(levels)) <= 1


def test_it_is_the_same_when_it_is_made_again(workdir):
  with open(write_report(workdir, DEFAULTS)) as file:
    first = file.read()
  with open(write_report(workdir, DEFAULTS)) as file:
    assert file.read() == first


@pytest.mark.parametrize("make", [prune_run, compare_run])
def test_all_sections_are_there_and_old_workdirs_have_those_they_can_carry(make, tmp_path):
  page = parsed(write_report(make(str(tmp_path / "new")), DEFAULTS))
  every = [name for name in SECTIONS if make is prune_run or name != "recovery"]
  assert sections(page) == every
  assert [text for tag, text in page.headings if tag == "h2"] == [SECTIONS[n][0] for n in every]
  page = parsed(write_report(make(str(tmp_path / "old"), explained=False), DEFAULTS))
  needed = {"network", "magnitude", "learning"} | ({"widths"} if make is prune_run else set())
  assert sections(page) == [name for name in every if name not in needed]


def test_the_numbers_of_a_pruned_network_are_those_of_its_result(tmp_path):
  path = prune_run(str(tmp_path / "run"))
  page = parsed(write_report(path, DEFAULTS))
  headers, rows = comparison_cells(METHODS, "accuracy")
  assert page.tables[0] == [headers, *rows]
  text = " ".join(" ".join(page.texts).split())
  assert (
    "The pruned network keeps 49.8 % of the MACs and 47.0 % of the parameters, and its accuracy on "
    "the test part is 97.8 % after fine-tuning; the dense network has 98.5 %, and the best "
    "classical pruner by the select part, l1 global, has 94.2 %. "
  ) in text
  assert "Before any gradient step the same networks have 79.8 % and 40.5 %." in text
  assert page.tables[1] == [["group", "channels"], ["stem", "4 → 2"], ["block", "2 → 1"]]
  # Magnitude would keep channels 0 and 1 of the stem; of those, 1 is removed, and 3 is kept.
  # Removed otherwise are channel 2 of the stem and 1 of the block, of which 0.5 and 0.75 are
  # explained.
  assert (
    "Of 3 removed channels, 1 would have been kept by their magnitude, if each group kept as many "
    "as it does. The other kept channels explain on average 88 % of the energy of these, 62 % of "
    "the energy of the other removed ones and 12 % of the energy of those that are kept although "
    "magnitude would remove them."
  ) in text
  assert page.tables[2][1:] == [["stem[1]", "2 of 4", "0.875"]]
  assert page.tables[3] == [
    ["setting", "value", "default"], ["seed", "7", "0"]
  ]  # fmt: skip
  assert ["jax", runs.versions()["jax"]] in page.tables[4]
  assert f"gp.load({os.path.join(path, 'pruned')!r})" in text


def test_the_numbers_of_a_comparison_are_those_of_its_rows(tmp_path):
  path = compare_run(str(tmp_path / "run"))
  page = parsed(write_report(path, DEFAULTS))
  with open(os.path.join(path, "compare.json")) as file:
    rows = [CompareRow(**row) for row in json.load(file)]
  for table, budget in zip(page.tables, (0.5, 0.25), strict=False):
    headers, cells = methods_cells([row for row in rows if row.budget == budget], finetuned=True)
    assert table == [headers, *cells]
  mean = lambda method, field: np.mean(
    [getattr(row, field) for row in rows if (row.method, row.budget) == (method, 0.25)]
  )
  best = max(("l1 global", "l1 uniform", "evolve_bits"), key=lambda m: mean(m, "select_accuracy"))
  (told,) = (text for text in page.texts if text.startswith("At 0.25 of the MACs"))
  assert f"the agent has {100 * mean('agent', 'test_accuracy'):.1f} ± " in told
  assert f"{best}, {100 * mean(best, 'test_accuracy'):.1f} ± " in told
  assert page.tables[2][1] == ["stem", "4 → 2"]
  # A pruner that was fine-tuned for longer is not the best of methods at the same recipe.
  told = {"method": "for longer", "select_accuracy": 1.0, "test_accuracy": 0.97, "epochs": 90}
  rows += [rows[0]._replace(seed=seed, **told) for seed in (0, 1)]
  runs.write_json(os.path.join(path, "compare.json"), [row._asdict() for row in rows])
  texts = parsed(write_report(path, DEFAULTS)).texts
  (told,) = (text for text in texts if text.startswith("At 0.5 of the MACs"))
  assert told.endswith(
    " Fine-tuned for up to 90 epochs instead of 0, for longer has 97.0 ± 0.0 % (2 seeds)."
  )
  assert "select part, for longer" not in told


def test_what_others_named_is_text_and_no_markup(tmp_path):
  path = prune_run(str(tmp_path / "run"), dataset="<b>&", data_dir="</style><script>")
  page = parsed(write_report(path, DEFAULTS))  # `Parsed` refuses a script
  assert page.headings[0] == ("h1", "Pruned network, <b>&")
  assert ["data_dir", "</style><script>", ""] in page.tables[3]


def test_a_score_that_is_no_accuracy_is_shown_as_it_is(tmp_path):
  path = prune_run(str(tmp_path / "run"), task="minus squared error")
  text = " ".join(" ".join(parsed(write_report(path, DEFAULTS)).texts).split())
  assert "its mean minus squared error on the test part is 0.9775 after fine-tuning" in text


def test_several_runs_stand_side_by_side(tmp_path, capsys):
  paths = [prune_run(str(tmp_path / "a")), compare_run(str(tmp_path / "b"))]
  out = str(tmp_path / "both.html")
  assert report_main.make(paths, out) == out
  page = parsed(out)
  assert sections(page) == list(SECTIONS)
  assert len(set(page.ids)) == len(page.ids)
  labels = [text for tag, text in page.headings if tag == "h3"]
  assert labels.count(paths[0]) == len(SECTIONS)
  assert labels.count(paths[1]) == len(SECTIONS) - 1


def test_the_main_makes_it_again_and_refuses_what_is_no_finished_run(tmp_path):
  path = prune_run(str(tmp_path / "run"))
  report = write_report(path, DEFAULTS)
  with open(report) as file:
    first = file.read()
  os.remove(report)
  assert report_main.make([path], None) == report
  with open(report) as file:
    assert file.read() == first
  with pytest.raises(gp.InputError, match="no workdirs given"):
    report_main.make([], None)
  with pytest.raises(gp.InputError, match=r"2 workdirs are given, .* add --page=FILE"):
    report_main.make([path, path], None)
  with pytest.raises(gp.InputError, match=r"is not the workdir of a run: it has no config.json"):
    report_main.make([str(tmp_path)], None)
  unfinished, other = str(tmp_path / "unfinished"), str(tmp_path / "other")
  with runs.claim(unfinished, "prune", DEFAULTS), runs.claim(other, "train", DEFAULTS):
    pass
  with pytest.raises(gp.InputError, match=r"not the workdir of a finished run: it has no result"):
    report_main.make([unfinished], None)
  with pytest.raises(
    gp.InputError, match=r"holds a run of experiments.train, of which there is no"
  ):
    report_main.make([other], None)
  assert not os.path.exists(os.path.join(unfinished, "report.html"))


def test_damaged_files_are_named(tmp_path):
  path = prune_run(str(tmp_path / "run"))
  for name, content in (("metrics.jsonl", "{"), ("explained.json", '{"groups": [{}]}')):
    place = os.path.join(path, name)
    with open(place) as file:
      before = file.read()
    with open(place, "w") as file:
      file.write(content)
    with pytest.raises(gp.InputError, match=f"{name} is damaged"):
      write_report(path, DEFAULTS)
    with open(place, "w") as file:
      file.write(before)
