"""Figures as files of their own, which a page shows as images."""

import re

from gatprune_jax.reporting.templates import environment

_WIDTH = 720  # pixels, where the page has room for so many


def standalone(figure: str) -> str:
  """Returns the content of an SVG file with a figure on a background of its own.

  The colours are those of the report, light or dark as the reader's browser prefers; the background
  keeps the figure readable where the page around it is otherwise.

  Args:
    figure: the element that `gatprune_jax.runs.drawing.svg` returns.
  """
  view = re.search(r'viewBox="([^"]*)"', figure)[1]
  template = environment().get_template("figure.svg")
  return template.render(figure=figure, view=view, width=_WIDTH) + "\n"
