"""The templates of pages and figures."""

import jinja2


def environment() -> jinja2.Environment:
  """Returns what finds the templates, and fails where one uses a name that it was not given."""
  return jinja2.Environment(
    loader=jinja2.PackageLoader("gatprune_jax.reporting", "template"),
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
  )  # fmt: skip
