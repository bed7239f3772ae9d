"""The tables of RESULTS.md: what makes each of them, and of which code it is."""
