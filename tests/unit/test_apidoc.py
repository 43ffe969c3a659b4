"""docs/api.md is what the comments of the contract make."""

from __future__ import annotations

import re
from pathlib import Path

import apidoc

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == apidoc.text(), "run `make proto`"


def test_its_links_lead_to_headings() -> None:
    page = PAGE.read_text(encoding="utf-8")
    headings = {title.lower() for title in re.findall(r"^### (\w+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\(#(\w+)\)", page)) <= headings
