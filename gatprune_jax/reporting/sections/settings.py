"""The settings that differ from the defaults, and the versions of what the run depended on."""

from collections.abc import Iterator, Mapping
import json
from typing import Any

from gatprune_jax.reporting.parts import Part, Table, Text
from gatprune_jax.reporting.record import Run


def settings(run: Run, name: str) -> list[Part]:
  """Returns the settings that differ from the defaults."""
  # What has no default at all, such as checksums of the data, is no setting.
  own = {name: value for name, value in run.config.items() if name in run.defaults}
  body = [
    [field, _shown(value), _shown(default)]
    for field, value, default in differences(own, run.defaults)
  ]
  if not body:
    return [Text("All settings have their defaults.")]
  caption = "Settings that differ from the defaults."
  return [Table(caption, ("setting", "value", "default"), body)]


def versions(run: Run, name: str) -> list[Part]:
  """Returns the versions of libraries, Python and device."""
  caption = "What the run depended on."
  return [Table(caption, ("name", "version"), [list(pair) for pair in run.versions.items()])]


def differences(
  config: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
  """Yields dotted name, value and default of every field that differs; a default may be absent."""
  for field, value in config.items():
    default = defaults.get(field)
    if isinstance(value, Mapping) and isinstance(default, Mapping):
      yield from differences(value, default, f"{prefix}{field}.")
    elif value != default:
      yield f"{prefix}{field}", value, default


def _shown(value: Any) -> str:
  if value is None:
    return "none"
  return value if isinstance(value, str) else json.dumps(value)
