"""The listing of all fields of a config, generated from the dataclasses that they belong to."""

from collections.abc import Iterator
import dataclasses
import textwrap
from typing import Any

from docstring_parser import DocstringStyle, parse

from experiments.common.config_tree import is_open

_WIDTH = 100
_COLUMN = 40  # where meanings begin


def describe(section: Any) -> str:
  """Every field as `section.field = value  # meaning`, and a heading over each section."""
  title = "As config.FIELD in a config file, or --config.FIELD=VALUE on the command line."
  return "\n\n".join(_blocks(section, "", title))


def meanings(cls: type) -> dict[str, str]:
  """What the docstrings of a dataclass, and of those that it inherits from, say of each field."""
  parents = [parent for parent in reversed(cls.__mro__) if dataclasses.is_dataclass(parent)]
  return {
    told.arg_name: " ".join(told.description.split())
    for parent in parents
    for told in parse(parent.__doc__, DocstringStyle.GOOGLE).params
  }


def _blocks(section: Any, prefix: str, title: str) -> Iterator[str]:
  """A block of lines for the section's own fields, then those of the sections in it."""
  told, lines, inner = meanings(type(section)), [], []
  for field in dataclasses.fields(section):
    name, value, meaning = prefix + field.name, getattr(section, field.name), told[field.name]
    if dataclasses.is_dataclass(value):
      inner += _blocks(value, f"{name}.", f"{name}: {meaning}")
    elif is_open(field):
      lines += [_line(prefix + own, value[own], meaning) for own in value]
    elif isinstance(value, dict):
      entries = [_line(f"{name}.{key}", value[key], "") for key in value]
      inner.append("\n".join([_heading(f"{name}: {meaning}"), *entries]))
    else:
      lines.append(_line(name, value, meaning))
  yield "\n".join([_heading(title), *lines])
  yield from inner


def _heading(title: str) -> str:
  return textwrap.fill(title, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _line(name: str, value: Any, meaning: str) -> str:
  """The field and its value, with its meaning beside it, or below where there is no place."""
  left = f"{name} = {value!r}"
  margin = " " * _COLUMN + "  # "
  comment = textwrap.fill(meaning, _WIDTH, initial_indent=margin, subsequent_indent=margin)
  if len(left) > _COLUMN:
    return f"{left}\n{comment}".strip()
  return (left + comment[len(left) :]).strip()
