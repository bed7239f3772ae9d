"""Fast implementations of operations; the tests compare each with a plain reference."""
