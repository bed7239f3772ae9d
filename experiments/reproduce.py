"""Runs the tables of RESULTS.md again: `python -m experiments.reproduce [TABLE...] --workdir=DIR`.

Without names all tables are run, each in a directory of its own in the workdir. The same command
continues where it was stopped, and runs no table again that is finished. The rows of a finished
table are written to `results/TABLE`. The table is made from them and written to RESULTS.md, with
its commands and a stamp that says of which code it is.

`--adopt=DIR` makes one table from a finished run that was begun by hand, and runs nothing. It is
stamped as `of earlier code`, because nobody noted which code it is of, and so is a table whose run
another program began in the workdir.

`--list` shows the tables, their expected time, and of which code they are. A test fails where a
table is of other code than its stamp says; `--mark_outdated` changes those stamps to `of earlier
code`. The tables are those of `experiments/tables/catalogue.py`.
"""

from collections.abc import Sequence
import os
import sys

from absl import app, flags, logging

from experiments.tables.catalogue import TABLES
from experiments.tables.code import Project
from experiments.tables.page import Stamp, read_blocks, with_block
from experiments.tables.running import (
  ROOT,
  Places,
  arguments_of,
  keep_rows,
  make,
  outdated,
  write_table,
)
from gatprune_jax.errors import InputError
from gatprune_jax.runs.report import markdown_table
from gatprune_jax.runtime.preemption import EXIT_CODE, Preempted, listening
from gatprune_jax.runtime.whole_files import whole_file

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the runs of all tables.")
_DATA = flags.DEFINE_string("data", None, "Directory of the data that some tables need.")
_LIST = flags.DEFINE_bool("list", False, "Lists the tables, and ends.")
_ADOPT = flags.DEFINE_string(
  "adopt", None, "Directory of a finished run, from which the one table that is named is made."
)
_MARK = flags.DEFINE_bool(
  "mark_outdated", False, "Stamps tables of other code as `of earlier code`, and ends."
)


def main(argv: list[str]) -> None:
  """Runs the named tables, or all."""
  logging.set_verbosity(logging.WARNING)  # jax logs which backends it does not find
  try:
    names = argv[1:] or list(TABLES)
    if unknown := [name for name in names if name not in TABLES]:
      raise InputError(f"table {unknown[0]!r} is unknown: choose from {', '.join(TABLES)}")
    places = Places(*(path and os.path.abspath(path) for path in (_WORKDIR.value, _DATA.value)))
    if _LIST.value:
      print(listing(names, places))
    elif _MARK.value:
      mark_outdated(places)
    elif _ADOPT.value:
      if len(argv) != 2:
        raise InputError(f"--adopt is for one table, got {len(argv) - 1}: name the one")
      adopt(names[0], _ADOPT.value, places)
    else:
      reproduce(names, places)
  except Preempted as stopped:
    print(f"{stopped}: the same command goes on from there", file=sys.stderr)
    sys.exit(EXIT_CODE)
  except (InputError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


def reproduce(names: Sequence[str], places: Places) -> None:
  """Makes the named tables, after a check that all data are there.

  Raises:
    InputError: where there is no workdir, a table needs data that are missing, or a run fails.
    Preempted: where a signal came.
  """
  if not places.workdir:
    raise InputError("no workdir given: add --workdir=DIR")
  for name in names:
    for argument in (each for command in TABLES[name].commands for each in arguments_of(command)):
      needed = argument.partition("$DATA/")[2]
      if needed and not (places.data and os.path.exists(os.path.join(places.data, needed))):
        raise InputError(
          f"table {name} needs {needed}, and --data is {places.data}: give a directory that has "
          "it; experiments/tables/catalogue.py says what it is"
        )
  with listening() as asked:
    for name in names:
      minutes = TABLES[name].minutes
      took = f"took {minutes} minutes" if minutes else "was not timed"
      print(f"{name} begins or goes on; an earlier run {took}", file=sys.stderr)
      make(name, TABLES[name], places, Project(ROOT), asked)
      print(f"{name} is in {places.page}: see whether the words beside it still hold")


def adopt(name: str, run: str, places: Places) -> None:
  """Makes a table from a finished run that was begun by hand, as one of earlier code.

  Args:
    name: name of the table.
    run: directory of the run.
    places: where rows and table go.

  Raises:
    InputError: where the run lacks a file of rows.
  """
  table = TABLES[name]
  if missing := [row for row in table.rows if not os.path.exists(os.path.join(run, row))]:
    raise InputError(f"{run} has no {missing[0]}: give the directory of a finished run of {name}")
  keep_rows(table.rows, run, os.path.join(places.results, name))
  write_table(name, table, Stamp(None, None, True), places)
  print(f"{name} is in {places.page}: see whether the words beside it still hold")


def listing(names: Sequence[str], places: Places) -> str:
  """Returns a markdown table of the tables, their expected time, and of which code they are."""
  with open(places.page, encoding="utf-8") as file:
    page = file.read()
  blocks, old = read_blocks(page), outdated(TABLES, page, Project(ROOT))
  told = {name: f"of {block.stamp}" for name, block in blocks.items()}
  told |= {name: f"{told[name]}, but here it is {code}" for name, code in old.items()}
  body = [
    [name, f"{TABLES[name].minutes or 'not timed'}", told.get(name, "not on the page")]
    for name in names
  ]
  return markdown_table(("table", "minutes", "code"), body)


def mark_outdated(places: Places) -> None:
  """Says on the page of each table that is of other code than its stamp says that it is so."""
  with open(places.page, encoding="utf-8") as file:
    page = file.read()
  for name in outdated(TABLES, page, Project(ROOT)):
    block = read_blocks(page)[name]
    page = with_block(
      page, name, TABLES[name].heading, block._replace(stamp=block.stamp._replace(earlier=True))
    )
    print(f"{name} is of earlier code")
  with whole_file(places.page) as file:
    file.write(page.encode())


if __name__ == "__main__":
  app.run(main)
