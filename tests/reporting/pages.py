"""Reads a page of the report, and refuses one that is not well-formed."""

from html.parser import HTMLParser
import re

_VOID = {"meta", "wbr"}


class Parsed(HTMLParser):
  """A page as its ids, references, tables and texts; refuses elements that do not nest."""

  def __init__(self, text):
    super().__init__(convert_charrefs=True)
    self.ids, self.references, self.tables, self.texts, self.headings = [], [], [], [], []
    self._open, self._tables = [], []
    self.feed(text)
    self.close()
    assert self._open == []

  def handle_starttag(self, tag, attributes):
    self.handle_startendtag(tag, attributes)
    if tag not in _VOID:
      self._open.append(tag)

  def handle_startendtag(self, tag, attributes):
    attributes = dict(attributes)
    assert tag not in ("script", "img", "link", "iframe", "object", "form"), tag
    self.ids += [attributes["id"]] if "id" in attributes else []
    self.references += [attributes[k] for k in ("href", "src", "xlink:href") if k in attributes]
    for name, value in attributes.items():
      self.references += re.findall(r"url\(([^)]*)\)", value)
      self.references += [f"#{each}" for each in value.split() if name == "aria-labelledby"]
    if tag == "table":
      self.tables.append([])
    if tag == "tr":
      self.tables[-1].append([])
    if tag in ("td", "th"):
      self.tables[-1][-1].append("")
    if tag in ("h1", "h2", "h3"):
      self.headings.append((tag, ""))

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    data = data.replace("\N{NO-BREAK SPACE}", " ")
    if {"td", "th"} & set(self._open):
      self.tables[-1][-1][-1] += data.strip()
    if self._open and self._open[-1] == "style":
      self.references += re.findall(r"url\(([^)]*)\)|@import", data)
    elif self._open and self._open[-1] in ("h1", "h2", "h3"):
      self.headings[-1] = (self._open[-1], self.headings[-1][1] + data)
    else:
      self.texts.append(data)


def parsed(path):
  with open(path) as file:
    return Parsed(file.read())
