"""The exception for wrong input, as opposed to a defect of this package."""


class InputError(ValueError):
  """Wrong input: the message says what was wrong, with the value, and what would be right.

  The checks of user input raise this exception. The mains in `experiments` print its message as
  one sentence and exit with code 1. Any other exception keeps its traceback, because it shows a
  defect of this package.
  """


def first_line(error: BaseException) -> str:
  """Returns the first line of an exception's message, or its type's name if that is empty."""
  return (str(error).strip() or type(error).__name__).splitlines()[0]
