"""Conversion between frozen dataclasses and the nested dict of values that a config file holds.

A field's name, type, default and meaning are written once, in its dataclass. A field whose value is
a dataclass is a section, which is a nested dict in the tree.
"""

from collections.abc import Mapping
import dataclasses
import math
import typing
from typing import Any

from ml_collections import ConfigDict, config_dict
import numpy as np

from gatprune_jax import InputError

# Metadata of a dict field whose entries are set in the section itself, beside the other fields. The
# section then takes any name. The section of a network, for example, takes all arguments of the
# network's constructor in this way.
OPEN = {"open": True}
# Metadata of a dict field whose values may be numbers or text.
MIXED = {"mixed": True}
_ACCEPTED = {
  bool: (bool,), int: (int,), float: (int, float), str: (str,), tuple: (tuple, list), dict: (dict,),
}  # fmt: skip


def is_open(field: dataclasses.Field) -> bool:
  """Returns whether the field was made with the metadata `OPEN`."""
  return "open" in field.metadata


def settable(section: Any) -> list[dataclasses.Field]:
  """Returns the fields that a config has: all but those with the metadata {"setting": False}."""
  return [field for field in dataclasses.fields(section) if field.metadata.get("setting", True)]


def as_tree(section: Any) -> dict[str, Any]:
  """Returns the values of a dataclass's fields as a nested dict."""
  tree = {}
  for field in settable(section):
    value = getattr(section, field.name)
    if is_open(field):
      tree |= value
    else:
      tree[field.name] = as_tree(value) if dataclasses.is_dataclass(value) else value
  return tree


def as_json(section: Any) -> dict[str, Any]:
  """Returns the values of a dataclass's fields as a nested dict of JSON types."""
  return _plain(as_tree(section))


def _plain(value: Any) -> Any:
  """Converts a value, and all values in it, to JSON types."""
  if isinstance(value, dict):
    return {name: _plain(item) for name, item in value.items()}
  if isinstance(value, (tuple, list)):
    return [_plain(item) for item in value]
  return value.item() if isinstance(value, np.generic) else value


def as_config(section: Any) -> ConfigDict:
  """Returns the values of a dataclass's fields as a ConfigDict.

  A config file changes this ConfigDict, and after that the command line does. Both can also set a
  number that is None by default, and a number or text in a field with the metadata `MIXED`.
  """
  return ConfigDict(_with_mixed(_with_placeholders(as_tree(section)), section))


def _with_mixed(tree: dict[str, Any], section: Any) -> dict[str, Any]:
  """Lets a ConfigDict accept numbers and text in the fields that have the metadata `MIXED`."""
  tree = dict(tree)
  for field in settable(section):
    value = getattr(section, field.name)
    if dataclasses.is_dataclass(value):
      tree[field.name] = _with_mixed(tree[field.name], value)
    elif "mixed" in field.metadata:
      mixed = lambda entry: config_dict.FieldReference(entry, field_type=object)
      tree[field.name] = {name: mixed(entry) for name, entry in value.items()}
  return tree


def _with_placeholders(tree: dict[str, Any]) -> dict[str, Any]:
  """Replaces each None by a placeholder, so that a ConfigDict accepts a number in its place."""
  kept = lambda value: config_dict.placeholder(float) if value is None else value
  return {
    name: _with_placeholders(value) if isinstance(value, dict) else kept(value)
    for name, value in tree.items()
  }


def made(cls: type, tree: Any, where: str) -> Any:
  """Makes a dataclass from a nested dict; fields that the dict lacks keep their defaults.

  Args:
    cls: the dataclass.
    tree: the values, as config file and command line set them.
    where: what the section is called in error messages.

  Raises:
    InputError: if a field is unknown, has a value of another type, or is refused by its dataclass.
  """
  if not isinstance(tree, dict):
    raise InputError(f"{where} is {tree!r}: it must have fields of its own")
  fields = settable(cls)
  kinds = {field.name: field.type for field in fields if not is_open(field)}
  others = {name: value for name, value in tree.items() if name not in kinds}
  taken = {field.name: others for field in fields if is_open(field)}
  if others and not taken:
    raise InputError(f"{where} has {next(iter(others))}, which no experiment knows: take it out")
  values = {
    name: _made_field(kind, tree[name], f"{where}.{name}")
    for name, kind in kinds.items()
    if name in tree
  }
  return cls(**values, **taken)


def _made_field(kind: Any, value: Any, where: str) -> Any:
  if dataclasses.is_dataclass(kind):
    return made(kind, value, where)
  kind = typing.get_origin(kind) or kind
  if type(value) not in _ACCEPTED[kind]:
    raise InputError(f"{where} is {value!r}: it must be of type {kind.__name__}")
  return tuple(value) if kind is tuple else value


def changed(tree: Mapping[str, Any], changes: Any, where: str) -> dict[str, Any]:
  """Returns a copy of a nested dict with some of its values replaced.

  Args:
    tree: the nested dict.
    changes: the new values, as a nested dict with some of the keys of `tree`.
    where: what the changes are called in error messages.

  Raises:
    InputError: if `changes` has a key that `tree` lacks, or is not a dict.
  """
  if not isinstance(changes, dict):
    raise InputError(f"{where} is {changes!r}: it must be fields of a search, with their values")
  if unknown := set(changes) - set(tree):
    raise InputError(f"{where} changes {sorted(unknown)[0]!r}, which a search does not have")
  return {
    name: changed(value, changes[name], where)
    if name in changes and isinstance(value, dict)
    else changes.get(name, value)
    for name, value in tree.items()
  }


def refuse_infinite(tree: Mapping[str, Any], where: str) -> None:
  """Raises InputError for NaN and infinity, which the checks of the dataclasses could let pass."""
  for name, value in tree.items():
    if isinstance(value, dict):
      refuse_infinite(value, f"{where}.{name}")
    elif isinstance(value, float) and not math.isfinite(value):
      raise InputError(f"{where}.{name} is {value}: it must be a finite number")
