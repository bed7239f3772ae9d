"""Tests that the table of rules says something of every primitive of JAX."""

import jax

from gatprune_jax.channels.rules.table import RULES, WITHOUT_RULE
from gatprune_jax.channels.tracing.labelling import CALLS


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
