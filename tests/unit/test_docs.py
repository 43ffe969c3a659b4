"""The documentation names what there is, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from edbjobs_server.config.settings import Settings
from edbjobs_server.config.site_policy import SitePolicy

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "examples" / "README.md",
]


def test_every_setting_and_key_of_the_policy_is_documented_and_no_other() -> None:
    settings, site = (ROOT / "docs" / "settings.md").read_text().split("## The site's policy")
    for text, model in ((settings, Settings), (site, SitePolicy)):
        rows = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
        documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
        assert documented == set(model.model_fields)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
