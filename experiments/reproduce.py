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

import os
import sys

from absl import app, flags, logging

from experiments.tables.actions import adopt, listing, mark_outdated, reproduce
from experiments.tables.catalogue import TABLES
from experiments.tables.running import Places
from gatprune_jax.errors import InputError
from gatprune_jax.runtime.preemption import EXIT_CODE, Preempted

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


if __name__ == "__main__":
  app.run(main)
