"""A page from the one template: it needs no network and runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from lazybench.report.text import WORDS
from lazybench.run.files import write_atomically

ENVIRONMENT = Environment(loader=PackageLoader("lazybench.report", "templates"), autoescape=True)


def write_html(path: Path, **values: Any) -> None:
    """Write the page; every text is escaped, and a part without a value is left out."""
    page = ENVIRONMENT.get_template("page.html").render(words=(*WORDS, "prediction"), **values)
    write_atomically(path, page.encode())
