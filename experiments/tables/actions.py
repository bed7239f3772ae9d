"""What `experiments.reproduce` can do with the tables: make, adopt, list and mark them."""

from collections.abc import Sequence
import os
import sys

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
from gatprune_jax.runtime.preemption import listening
from gatprune_jax.runtime.whole_files import whole_file


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
