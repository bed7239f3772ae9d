"""Lists what every primitive of JAX does with channels, from the tables of rules.

`python -m gatprune_jax.channels.tracing.listing > gatprune_jax/channels/README.md` writes the page.
"""

import inspect

from gatprune_jax.channels.rules.table import RULES, WITHOUT_RULE
from gatprune_jax.channels.tracing.labelling import CALLS

_HEAD = """# What carries channels

This page is made by `python -m gatprune_jax.channels.tracing.listing` from the tables of rules.

An axis that may hold channels has a label for each element. Elements that must be removed together
have their labels *unified*; a label that is *frozen* belongs to an element that is never removed.
An operation that is not on this page freezes every label that reaches it: it makes a network less
prunable, and never wrong.
"""
_CALLS = """## Programs within programs

The bodies of {names} are labelled like the program around them. A `scan` removes the same channels
in every iteration. So does a `while` without layers in its condition, and the channels that the
condition reads are frozen. The branches of a `cond` that contains no layer are labelled, and its
results have the same channels whichever branch is taken.
"""


def listing() -> str:
  """Returns the page as Markdown: primitives with a rule, programs, and primitives without one."""
  of_rule: dict[str, list[str]] = {}
  for name, rule in RULES.items():
    said = " ".join(inspect.getdoc(rule.propagate).split("\n\n")[0].split())
    of_rule.setdefault(said, []).append(name)
  of_reason: dict[str, list[str]] = {}
  for name, reason in WITHOUT_RULE.items():
    of_reason.setdefault(f"{reason[0].upper()}{reason[1:]}.", []).append(name)
  parts = [
    _HEAD,
    _table("## Operations with a rule", "what it does with labels", of_rule),
    _CALLS.format(names=_names(list(CALLS))),
    _table("## Operations that freeze", "why", of_reason),
  ]
  return "\n".join(parts)


def _table(title: str, column: str, primitives: dict[str, list[str]]) -> str:
  rows = [f"| {_names(names)} | {said} |" for said, names in primitives.items()]
  return "\n".join([title, "", f"| primitives | {column} |", "|---|---|", *rows, ""])


def _names(names: list[str]) -> str:
  return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
  print(listing(), end="")
