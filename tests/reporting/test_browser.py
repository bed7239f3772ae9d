"""Tests of the report in a real browser; skipped where there is none."""

import pytest

from gatprune_jax.reporting import write_report
from gatprune_jax.reporting.page import SECTIONS
from tests.reporting.browser import executable, open_page
from tests.reporting.workdirs import DEFAULTS, compare_run, prune_run

pytestmark = pytest.mark.skipif(executable() is None, reason="there is no browser")

# Returns the widest element that is wider than the page and cannot be scrolled by itself.
_TOO_WIDE = """
[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre, svg') &&
  e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML)
"""
_HEIGHTS = "[...document.querySelectorAll('section')].map(e => [e.id, e.offsetHeight])"
_BACKGROUND = "getComputedStyle(document.body).backgroundColor"
_TEXT = "getComputedStyle(document.querySelector('svg text')).fill"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  with open_page(str(tmp_path_factory.mktemp("profile"))) as page:
    yield page


def test_it_shows_everything_asks_for_nothing_and_complains_of_nothing(page, tmp_path):
  for make in (prune_run, compare_run):
    path = write_report(make(str(tmp_path / make.__name__)), DEFAULTS)
    expected = [name for name in SECTIONS if make is prune_run or name != "recovery"]
    colours = set()
    for width in (1280, 390):
      for dark in (False, True):
        page.show(path, width, dark)
        page.screenshot(
          str(tmp_path / f"{make.__name__}-{width}-{'dark' if dark else 'light'}.png")
        )
        assert page.complaints() == []
        assert page.requests() == [f"file://{path}"]
        heights = dict(page.evaluate(_HEIGHTS))
        assert list(heights) == expected
        assert min(heights.values()) > 50
        assert page.evaluate(_TOO_WIDE) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        colours.add((dark, page.evaluate(_BACKGROUND), page.evaluate(_TEXT)))
    assert colours == {
      (False, "rgb(255, 255, 255)", "rgb(28, 32, 36)"),
      (True, "rgb(20, 23, 26)", "rgb(232, 235, 238)"),
    }


def test_a_page_that_asks_or_complains_is_noticed(page, tmp_path):
  path = tmp_path / "other.html"
  path.write_text("<img src='http://localhost:1/a.png'><script>console.error('no')</script>")
  page.show(path, 390)
  assert page.requests() == [f"file://{path}", "http://localhost:1/a.png"]
  assert any("no" in str(each) for each in page.complaints())
  path.write_text("<div style='width: 500px'>wide</div>")
  page.show(path, 390)
  assert len(page.evaluate(_TOO_WIDE)) == 1
