"""What a section of the report consists of; the template draws each kind of part."""

from collections.abc import Sequence
import dataclasses
from typing import ClassVar, NamedTuple


class Bar(NamedTuple):
  """A cell of a table with a bar beside its text."""

  text: str
  share: float  # length of the bar, 0 to 1


Cell = str | Bar


@dataclasses.dataclass(frozen=True)
class Text:
  """A paragraph.

  Attributes:
    text: its words.
    lead: whether it is the paragraph that stands out.
  """

  kind: ClassVar[str] = "text"
  text: str
  lead: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
  """A table, whose first column is the heading of its rows.

  Attributes:
    caption: what it shows.
    headers: one for each column.
    rows: the cells of each row.
    marked: name of the row that stands out; "": none.
    shown: number of rows that are shown at once; the others are folded.
  """

  kind: ClassVar[str] = "table"
  caption: str
  headers: Sequence[str]
  rows: Sequence[Sequence[Cell]]
  marked: str = ""
  shown: int = 40


@dataclasses.dataclass(frozen=True)
class Figure:
  """A figure with a caption.

  Attributes:
    svg: the element, from `gatprune_jax.runs.drawing.svg`.
    caption: what is to be seen, in whole sentences; "": that of the figure before it.
  """

  kind: ClassVar[str] = "figure"
  svg: str
  caption: str


@dataclasses.dataclass(frozen=True)
class Code:
  """Lines to copy.

  Attributes:
    text: the lines.
  """

  kind: ClassVar[str] = "code"
  text: str


Part = Text | Table | Figure | Code
