"""Drawing with matplotlib: PNG files, and SVG elements for HTML pages.

An element takes its colours from the page: its paths and texts have the names of CSS variables, so
one element serves light and dark pages. Its ids begin with the name of its figure, so that several
elements can be in one page. It has a title and a description for readers who do not see it.
"""

from collections.abc import Callable
import io
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

# {colour that a figure is painted with: CSS variable that stands in its place in the element}.
_VARIABLES = {
  "#000001": "--ink", "#000002": "--muted", "#000003": "--line", "#000004": "--paper",
  "#000011": "--series-1", "#000012": "--series-2", "#000013": "--series-3",
  "#000014": "--series-4", "#000015": "--series-5", "#000016": "--series-6",
}  # fmt: skip
INK, MUTED, LINE, PAPER, *SERIES = _VARIABLES
_MARKS = ("D", "o", "s", "^", "v", "P")
_STROKES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))

_WIDTH = 5.0  # inches; 360 points, about the width of a phone
_STYLE = {
  "svg.fonttype": "none",  # texts stay texts
  "text.parse_math": False,  # a name with "$" is a name
  "font.size": 11,
  "text.color": INK,
  "axes.edgecolor": LINE,
  "axes.labelcolor": INK,
  "axes.facecolor": "none",
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "axes.axisbelow": True,
  "grid.color": LINE,
  "grid.linewidth": 0.6,
  "xtick.color": LINE,
  "ytick.color": LINE,
  "xtick.labelcolor": INK,
  "ytick.labelcolor": INK,
  "legend.frameon": False,
  "legend.labelcolor": INK,
  "legend.title_fontsize": 11,
  "legend.handlelength": 1.7,
  "legend.columnspacing": 1.2,
  "lines.linewidth": 1.6,
  "lines.markersize": 6,
}
_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def series_style(place: int) -> dict[str, Any]:
  """Returns colour, mark and kind of line of a series, as arguments of matplotlib's `plot`.

  Mark and line differ between any 36 series, so that no two need their colours to be told apart.

  Args:
    place: place of the series among those of its figure, from 0.
  """
  num = len(SERIES)
  stroke = (place + place // num) % num
  return {
    "color": SERIES[place % num], "marker": _MARKS[place % num], "linestyle": _STROKES[stroke]
  }  # fmt: skip


def save_png(paint: Callable[[Figure], None], path: str, width: float, height: float) -> None:
  """Writes a figure as a PNG file.

  Args:
    paint: draws on the figure.
    path: path of the file.
    width: inches.
    height: inches.
  """
  figure = Figure(figsize=(width, height), layout="constrained")
  paint(figure)
  figure.savefig(path, dpi=150)


def svg(
  paint: Callable[[Figure], None], name: str, title: str, description: str, height: float
) -> str:
  """Returns a figure as an SVG element for an HTML page, as wide as the element that holds it.

  Args:
    paint: draws on the figure, in the colours of this module.
    name: what the element's ids begin with; unique in the page.
    title: what the figure shows, in some words.
    description: what a reader who does not see the figure should know of it.
    height: inches, at a width of five.
  """
  written = io.BytesIO()
  with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    paint(figure)
    figure.savefig(written, format="svg", transparent=True, metadata=_METADATA)
  root = ElementTree.fromstring(written.getvalue())
  _leave_out_style(root)
  _name_ids(root, name)
  for element in root.iter():
    element.tag = element.tag.rpartition("}")[2]
    element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    if style := element.get("style"):
      element.set("style", _in_variables(style))
  told = {"title": title, "desc": description}
  for place, (tag, text) in enumerate(told.items()):
    element = ElementTree.Element(tag, id=f"{name}-{tag}")
    element.text = text
    root.insert(place, element)
  root.attrib = {
    "viewBox": root.attrib["viewBox"],
    "role": "img",
    "aria-labelledby": " ".join(f"{name}-{tag}" for tag in told),
    # These are the defaults of the style sheet that `_leave_out_style` removes.
    "style": "stroke-linejoin: round; stroke-linecap: butt",
  }
  return ElementTree.tostring(root, encoding="unicode")


def _leave_out_style(root: ElementTree.Element) -> None:
  """Removes the style sheet, whose rules would hold for the whole page."""
  for parent in list(root.iter()):
    for child in list(parent):
      if child.tag.endswith("}style"):
        parent.remove(child)


def _name_ids(root: ElementTree.Element, name: str) -> None:
  """Begins every id with the figure's name, and removes the ids that nothing refers to."""
  refers = re.compile(r"(?<=url\(#)[^)]+")
  used = set()
  for element in root.iter():
    for key, value in element.attrib.items():
      if key.endswith("}href"):
        used.add(value.removeprefix("#"))
        element.set(key, f"#{name}-{value.removeprefix('#')}")
      elif found := refers.search(value):
        used.add(found[0])
        element.set(key, refers.sub(f"{name}-{found[0]}", value))
  for element in root.iter():
    if (own := element.attrib.pop("id", None)) in used:
      element.set("id", f"{name}-{own}")


def _in_variables(style: str) -> str:
  """Replaces a style's colours by CSS variables, and leaves the font to the page."""
  style = re.sub(r"font-family: [^;]*(; )?", "", style)
  return re.sub(r"#0000[01]\d", lambda found: f"var({_VARIABLES[found[0]]})", style)
