"""Tests that RESULTS.md has the tables of the catalogue, of the code that it says they are of."""

import json
import os
import subprocess
import sys

import pytest

from experiments.tables.actions import adopt, listing, mark_outdated, reproduce
from experiments.tables.catalogue import TABLES, Table
from experiments.tables.code import Project
from experiments.tables.markdown import as_printed, of_rounds
from experiments.tables.page import Block, Stamp, read_blocks, with_block
from experiments.tables.running import (
  ROOT,
  Places,
  make,
  modules_of,
  outdated,
)
from gatprune_jax import InputError
from tests.experiments.mains import wait_for

PLACES = Places("")
never = lambda: False


@pytest.fixture(scope="module")
def project():
  return Project(ROOT)


@pytest.fixture(scope="module")
def page():
  with open(PLACES.page, encoding="utf-8") as file:
    return file.read()


def test_the_page_has_every_table_and_its_commands(page):
  blocks = read_blocks(page)
  assert blocks.keys() == TABLES.keys()
  assert page.count("<!--") == 2 * len(blocks), (
    "a mark is not as experiments/tables/page.py reads it"
  )
  for name, block in blocks.items():
    assert block.commands == "\n".join(TABLES[name].commands)


def test_every_table_is_of_the_code_that_its_stamp_says(page, project):
  for name, code in outdated(TABLES, page, project).items():
    pytest.fail(
      f"table {name} is stamped as of code {read_blocks(page)[name].stamp.code}, and its code in "
      f"the repository is {code}: run `python -m experiments.reproduce {name} --workdir=DIR`, or "
      "`python -m experiments.reproduce --mark_outdated`"
    )


def test_every_table_is_what_its_rows_say(page):
  for name, block in read_blocks(page).items():
    if not block.stamp.earlier:
      assert block.table == TABLES[name].markdown(os.path.join(PLACES.results, name)), name


def test_the_commands_name_modules_and_configs_that_exist(project):
  for table in TABLES.values():
    for module in modules_of(table, project):
      assert os.path.exists(os.path.join(ROOT, *module.split(".")) + ".py")
  default = "experiments.configs.digits_resnet8"
  assert default in modules_of(TABLES["digits_20"], project)
  assert default not in modules_of(TABLES["memory"], project)
  assert "experiments.configs.digits_ablations" in modules_of(TABLES["digits_ablations"], project)


def test_the_table_of_rounds_by_hand(tmp_path):
  for rounds, after in (1, (0.90, 0.92, 0.94)), (3, (0.93, 0.93, 0.93)):
    for seed, accuracy in enumerate(after):
      agent = {
        "macs_ratio": 0.25 - 0.001 * seed, "test_accuracy_before_finetune": 0.5,
        "test_accuracy": accuracy,
      }  # fmt: skip
      result = {"budgets": {"macs": 0.25}, "dense": {"test_accuracy": 0.95}, "pruned": agent}
      (tmp_path / f"rounds{rounds}-seed{seed}").mkdir()
      (tmp_path / f"rounds{rounds}-seed{seed}" / "result.json").write_text(json.dumps(result))
  rows = [line.split("|")[1:-1] for line in of_rounds(str(tmp_path)).splitlines()[2:]]
  costs, before, dense = "0.9920 to 1.0000", "50.0 ± 0.0 %", "95.0 ± 0.0 %"
  assert [[cell.strip() for cell in row] for row in rows] == [
    ["1", costs, before, "92.0 ± 2.0 %", dense], ["3", costs, before, "93.0 ± 0.0 %", dense]
  ]  # fmt: skip


TEXT = """# Results

<!-- table first of code 0a1b at commit 12ab with changes -->

```bash
python -m experiments.first \\
  --flag
```

| a |
|---|

Below it.

<!-- end of table first -->

Words.
"""


def test_blocks_are_read_and_replaced():
  first = Block(
    Stamp("0a1b", "12ab with changes", False),
    "python -m experiments.first \\\n  --flag",
    "| a |\n|---|\n\nBelow it.",
  )
  assert read_blocks(TEXT) == {"first": first}
  assert with_block(TEXT, "first", "First", first) == TEXT
  second = Block(Stamp(None, None, True), "python -m experiments.second", r"| \1 |")
  both = with_block(TEXT, "second", "The second", second)
  assert both.startswith(TEXT)
  assert "\n## The second\n\n<!-- table second of earlier code -->\n" in both
  assert read_blocks(both) == {"first": first, "second": second}
  earlier = first._replace(stamp=first.stamp._replace(earlier=True), table="| b |")
  assert read_blocks(with_block(both, "first", "", earlier)) == {"first": earlier, "second": second}


MEMORY = "python -m experiments.memory --batch=1 --masks=0 --networks"
TINY = Table(
  "Tiny", (f"{MEMORY}=resnet20:8", f"{MEMORY}=resnet20:16"), 1, ("printed.md",), as_printed
)


@pytest.fixture
def places(tmp_path):
  (tmp_path / "page.md").write_text(TEXT)
  return Places(*(str(tmp_path / name) for name in ("runs", "data", "page.md", "results")))


def test_a_table_is_made_once_and_goes_on_where_it_was(places, project, tmp_path):
  broken = TINY._replace(commands=(TINY.commands[0], f"{MEMORY}=resnet20"))
  with pytest.raises(InputError, match=r"table tiny: .*resnet20 ended with code 1"):
    make("tiny", broken, places, project, never)
  assert (tmp_path / "page.md").read_text() == TEXT
  assert not os.path.exists(places.results)
  # The first command is done. If it ran again, it would fail.
  make(
    "tiny", TINY._replace(commands=(f"{MEMORY}=missing", TINY.commands[1])), places, project, never
  )
  block = read_blocks((tmp_path / "page.md").read_text())["tiny"]
  (row,) = [line for line in block.table.splitlines() if "resnet20" in line]
  assert row.split()[3] == "16"
  assert block.stamp.code == project.code_hash(["experiments.memory"])
  assert not block.stamp.earlier
  # A finished table is only written again.
  make("tiny", TINY._replace(commands=(f"{MEMORY}=missing",) * 2), places, project, never)
  assert read_blocks((tmp_path / "page.md").read_text())["tiny"].table == block.table


def test_a_table_that_was_begun_with_other_code_is_refused(places, project):
  os.makedirs(places.workdir)
  record = os.path.join(places.workdir, "tiny.json")
  with open(record, "w") as file:
    json.dump({"code": "0a", "commit": "1b", "earlier": False, "done": 1}, file)
  with pytest.raises(InputError, match=r"begun with code 0a, .* or check out 1b"):
    make("tiny", TINY, places, project, never)


def test_a_run_of_unknown_code_is_stamped_as_of_earlier_code(places, project, tmp_path):
  os.makedirs(os.path.join(places.workdir, "tiny"))
  make("tiny", TINY._replace(commands=TINY.commands[:1]), places, project, never)
  assert "<!-- table tiny of earlier code -->" in (tmp_path / "page.md").read_text()


def test_a_run_that_was_begun_by_hand_is_adopted(page, places, tmp_path):
  (tmp_path / "page.md").write_text(page)
  with pytest.raises(
    InputError, match=r"has no compare.json: give the directory of a finished run"
  ):
    adopt("cifar16_before", str(tmp_path), places)
  adopt("cifar16_before", os.path.join(PLACES.results, "cifar16_before"), places)
  changed = (tmp_path / "page.md").read_text()
  block = read_blocks(changed)["cifar16_before"]
  assert str(block.stamp) == "earlier code"
  # The agent's line at 0.25 is that of the page, whose other lines stay as they were.
  (line,) = [
    line for line in block.table.splitlines() if line.startswith("| agent") and "52.1" in line
  ]
  assert line in page
  others = lambda text: [
    each for name, each in read_blocks(text).items() if name != "cifar16_before"
  ]
  assert others(changed) == others(page)


def test_stamps_of_other_code_are_found(project, page):
  stamped = with_block(page, "memory", "", read_blocks(page)["memory"]._replace(
    stamp=Stamp("0a", "1b", False)))  # fmt: skip
  now = project.code_hash(["experiments.memory"])
  assert outdated(TABLES, stamped, project)["memory"] == now
  right = stamped.replace("memory of code 0a", f"memory of code {now}")
  assert "memory" not in outdated(TABLES, right, project)


def test_outdated_stamps_are_marked_and_others_stay(project, page, tmp_path, capsys):
  blocks = read_blocks(page)
  now = Stamp(project.code_hash(modules_of(TABLES["exported"], project)), "1b", False)
  stamps = {"memory": Stamp("0a", "1b with changes", False), "exported": now}
  for name, stamp in stamps.items():
    page = with_block(page, name, "", blocks[name]._replace(stamp=stamp))
  (tmp_path / "page.md").write_text(page)
  mark_outdated(Places("", page=str(tmp_path / "page.md")))
  assert capsys.readouterr().out == "memory is of earlier code\n"
  marked = page.replace("memory of code 0a", "memory of earlier code 0a")
  assert (tmp_path / "page.md").read_text() == marked


def test_without_a_workdir_nothing_runs():
  with pytest.raises(InputError, match="no workdir given: add --workdir=DIR"):
    reproduce(["memory"], Places(None))


@pytest.mark.parametrize(
  ("data", "words"),
  [
    (None, "table cifar16_before needs cifar10_16.npz, and --data is None"),
    ("elsewhere", "table cifar16_before needs cifar10_16.npz, and --data is elsewhere"),
  ],
)
def test_data_that_are_missing_are_named_before_anything_runs(tmp_path, data, words):
  with pytest.raises(InputError, match=words):
    reproduce(["memory", "cifar16_before"], Places(str(tmp_path / "runs"), data))
  assert not (tmp_path / "runs").exists()


def test_the_listing_says_which_code_every_table_is_of():
  lines = listing(["digits_20", "memory"], PLACES).splitlines()
  assert len(lines) == 4
  assert "digits_20" in lines[2]
  assert " 12 " in lines[2]
  assert "code" in lines[2]


def test_the_main_refuses_unknown_tables():
  command = [sys.executable, "-m", "experiments.reproduce", "--workdir=runs", "digits"]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 1
  assert "error: table 'digits' is unknown: choose from digits_20, " in done.stderr


@pytest.mark.parametrize(
  ("name", "begun"),
  [
    ("memory", "memory.json"),
    pytest.param("digits_20", "digits_20/seed0/metrics.jsonl", marks=pytest.mark.slow),
  ],
)
def test_a_signal_is_passed_on_to_the_command(tmp_path, name, begun):
  command = [sys.executable, "-m", "experiments.reproduce", f"--workdir={tmp_path}", name]
  process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
  assert wait_for((tmp_path / begun).exists, process)
  process.terminate()
  _, words = process.communicate(timeout=300)
  assert process.returncode == 75, words
  assert f"stopped in table {name}: the same command goes on from there" in words
  assert json.loads((tmp_path / f"{name}.json").read_text())["done"] == 0
  if name == "digits_20":  # the command itself has saved its state
    assert (tmp_path / name / "seed0" / "checkpoints" / "training").is_dir()
