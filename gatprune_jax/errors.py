"""The one exception that means "the input was wrong", as opposed to a defect of this package."""


class InputError(ValueError):
  """Bad input: the message says what was wrong, with the value, and what would be right.

  Checks at the boundary raise it; the mains in `experiments` print its message as one sentence
  and exit with code 1. Any other exception keeps its traceback, because it is a defect.
  """


def first_line(error: BaseException) -> str:
  """The first line of an exception's words; its name where it has none."""
  return (str(error).strip() or type(error).__name__).splitlines()[0]
