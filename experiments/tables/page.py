"""The blocks of tables in RESULTS.md: commands and table between two marks, the first a stamp.

A stamp says of which code the table is: its hash (see `code`), and the commit that was checked out.
`of earlier code` says that the table is not of the code in the repository.
"""

import re
from typing import NamedTuple


class Stamp(NamedTuple):
  """The code that made a table."""

  code: str | None  # its hash; None: nobody noted it
  commit: str | None
  earlier: bool  # whether the table says that it is of other code than that in the repository

  def __str__(self) -> str:
    noted = f" {self.code} at commit {self.commit}" if self.code else ""
    return f"{'earlier ' * self.earlier}code{noted}"


class Block(NamedTuple):
  """A table of the page, with the commands that make it."""

  stamp: Stamp
  commands: str  # one or more lines of the shell
  table: str  # markdown


_BLOCK = re.compile(
  r"<!-- table (?P<name>\S+) of (?P<earlier>earlier )?code"
  r"(?: (?P<code>[0-9a-f]+) at commit (?P<commit>[^>]+?))? -->\n\n"
  r"```bash\n(?P<commands>.*?)\n```\n\n(?P<table>.*?)\n\n<!-- end of table (?P=name) -->\n",
  re.DOTALL,
)


def read_blocks(page: str) -> dict[str, Block]:
  """Returns {name of the table: its block} of a page's text, in the page's order."""
  return {
    found["name"]: Block(
      Stamp(found["code"], found["commit"], found["earlier"] is not None),
      found["commands"],
      found["table"],
    )
    for found in _BLOCK.finditer(page)
  }


def with_block(page: str, name: str, heading: str, block: Block) -> str:
  """Returns the text of the page with a block in the place of the one of the same name.

  Args:
    page: text of the page.
    name: name of the table.
    heading: heading of the section that is added at the end, if the page has no such block.
    block: the new block.
  """
  written = (
    f"<!-- table {name} of {block.stamp} -->\n\n```bash\n{block.commands}\n```\n\n{block.table}\n\n"
    f"<!-- end of table {name} -->\n"
  )
  if name not in read_blocks(page):
    return f"{page}\n## {heading}\n\n{written}"
  return _BLOCK.sub(lambda found: written if found["name"] == name else found[0], page)
