"""Tests that the table of rules says something of every primitive of JAX."""

from pathlib import Path

import jax

from gatprune_jax import channels
from gatprune_jax.channels.rules.table import RULES, WITHOUT_RULE
from gatprune_jax.channels.tracing.labelling import CALLS
from gatprune_jax.channels.tracing.listing import listing


def test_every_primitive_of_lax_has_a_rule_or_a_reason():
  # A new version of JAX that adds a primitive fails this test with its name.
  found = {
    value.name
    for name in dir(jax.lax)
    if name.endswith("_p") and hasattr(value := getattr(jax.lax, name), "name")
  }
  assert len(found) > 100
  known = {*RULES, *CALLS, *WITHOUT_RULE, "scan"}
  assert sorted(found - known) == []


def test_no_primitive_has_both_a_rule_and_a_reason():
  assert not set(RULES) & set(WITHOUT_RULE)
  assert not set(RULES) & set(CALLS)


def test_the_page_of_what_carries_channels_is_of_this_code():
  page = Path(channels.__file__).with_name("README.md")
  assert page.read_text(encoding="utf-8") == listing(), (
    "run `python -m gatprune_jax.channels.tracing.listing > gatprune_jax/channels/README.md`"
  )


def test_the_page_names_every_primitive_once():
  page = listing()
  for name in {*RULES, *CALLS, *WITHOUT_RULE} - {"cond", "while"}:
    assert page.count(f"`{name}`") == 1, name
