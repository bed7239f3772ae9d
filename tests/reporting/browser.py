"""A headless browser, driven through the pipe of Chromium's DevTools protocol."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
  "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
  "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
  "--disable-sync", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


# Becomes the browser, which reads commands from file descriptor 3 and writes answers to 4. It is a
# process of its own, because the tests' process has threads and must not fork to run code.
_CONNECT = """
import os, sys
inputs, outputs = (os.dup(int(number)) for number in sys.argv[1:3])
for pipe, number in ((inputs, 3), (outputs, 4)):
  os.dup2(pipe, number)
  os.set_inheritable(number, True)
os.execv(sys.argv[3], sys.argv[3:])
"""


def executable():
  """Returns the path of a browser, or None where there is none."""
  return next(filter(None, map(shutil.which, _NAMES)), None)


class Page:
  """A page of the browser, with what it wrote to the console and what it asked the network for."""

  def __init__(self, commands, answers):
    self._commands, self._answers, self._number, self._session = commands, answers, 0, None
    self.events = []
    target = self.call("Target.createTarget", url="about:blank")["targetId"]
    attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
    self._session = attached["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
      self.call(f"{domain}.enable")

  def call(self, method, **params):
    """Sends a command and returns its result; events that come first are kept."""
    self._number += 1
    message = {"id": self._number, "method": method, "params": params}
    if self._session:
      message["sessionId"] = self._session
    self._commands.write(json.dumps(message).encode() + b"\0")
    self._commands.flush()
    while (answer := self._next()).get("id") != self._number:
      self.events.append(answer)
    assert "error" not in answer, answer
    return answer["result"]

  def _next(self):
    read = bytearray()
    while not read.endswith(b"\0"):
      some = self._answers.read(1)
      assert some, "the browser has ended"
      read += some
    return json.loads(read[:-1])

  def show(self, path, width, dark=False):
    """Loads a file in a window of the given width, on a light or a dark screen."""
    self.events.clear()
    self.call(
      "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
      mobile=False,
    )  # fmt: skip
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    self.call("Emulation.setEmulatedMedia", features=[scheme])
    self.call("Page.navigate", url=f"file://{os.path.abspath(path)}")
    while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
      self.events.append(self._next())
    self.evaluate("document.fonts.ready.then(() => true)")

  def evaluate(self, expression):
    """Returns the value of an expression of JavaScript."""
    result = self.call(
      "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
    )
    assert "exceptionDetails" not in result, result
    return result["result"].get("value")

  def complaints(self):
    """Returns what the page wrote to the console and the log since it was loaded."""
    told = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    return [event["params"] for event in self.events if event.get("method") in told]

  def requests(self):
    """Returns the addresses that were asked for since the page was loaded."""
    asked = "Network.requestWillBeSent"
    return [e["params"]["request"]["url"] for e in self.events if e.get("method") == asked]

  def screenshot(self, path):
    """Writes the whole page as a PNG file."""
    size = self.call("Page.getLayoutMetrics")["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
    taken = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
    with open(path, "wb") as file:
      file.write(base64.b64decode(taken["data"]))


@contextlib.contextmanager
def open_page(profile):
  """Starts a browser and opens a page in it.

  Args:
    profile: a directory for the browser's own files.
  """
  theirs, ours = os.pipe()  # commands
  answers, to_answers = os.pipe()

  pipes = theirs, to_answers
  process = subprocess.Popen(
    [sys.executable, "-c", _CONNECT, *map(str, pipes), executable(), *_FLAGS,
     f"--user-data-dir={profile}"],
    pass_fds=pipes, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
  )  # fmt: skip
  os.close(theirs)
  os.close(to_answers)
  try:
    with os.fdopen(ours, "wb") as commands, os.fdopen(answers, "rb") as read:
      page = Page(commands, read)
      yield page
      page._session = None
      page.call("Browser.close")
  finally:
    try:
      process.wait(timeout=30)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
