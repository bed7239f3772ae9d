"""The mains as processes of their own."""

import subprocess
import sys


def run(main, *arguments):
  return subprocess.run(
    [sys.executable, "-m", f"experiments.{main}", *arguments],
    capture_output=True, text=True, timeout=600, check=False,
  )  # fmt: skip
