"""The listing of all fields of a config, generated from the docstrings of their dataclasses."""

from collections.abc import Iterator
import dataclasses
import textwrap
from typing import Any

from docstring_parser import DocstringStyle, parse

from experiments.common.config_tree import is_open, settable

_WIDTH = 100
_COLUMN = 40  # column in which the meanings begin


def describe_config(section: Any) -> str:
  """Lists every field as `section.field = value  # meaning`, with a heading over each section."""
  title = "As config.FIELD in a config file, or --config.FIELD=VALUE on the command line."
  return "\n\n".join(_blocks(section, "", title))


def meanings(cls: type) -> dict[str, str]:
  """Reads the meaning of each field from the docstrings of a dataclass and of its parents."""
  parents = [parent for parent in reversed(cls.__mro__) if dataclasses.is_dataclass(parent)]
  return {
    told.arg_name: " ".join(told.description.split())
    for parent in parents
    for told in parse(parent.__doc__, DocstringStyle.GOOGLE).params
  }


def _blocks(section: Any, prefix: str, title: str) -> Iterator[str]:
  """Yields a block of lines for the section's own fields, then the blocks of inner sections."""
  told, lines, inner = meanings(type(section)), [], []
  for field in settable(section):
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
  """Returns `name = value` with the meaning beside it, or below it if the value is too long."""
  left = f"{name} = {value!r}"
  margin = " " * _COLUMN + "  # "
  comment = textwrap.fill(meaning, _WIDTH, initial_indent=margin, subsequent_indent=margin)
  if len(left) > _COLUMN:
    return f"{left}\n{comment}".strip()
  return (left + comment[len(left) :]).strip()
