"""The documents name files, settings and make targets that exist, and their links have targets."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import pytest
from edbjobs_server.config.settings import Settings
from edbjobs_server.config.site_policy import SitePolicy

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "examples" / "README.md",
]
# A path of the repository in backticks, or its last parts. Names with capitals, as in NNN_what.sql, are patterns.
NAMED = re.compile(r"`([a-z0-9_.][a-z0-9_./-]*\.(?:py|sql|j2|proto|txt|toml|mjs|ts|service|html|css))`")
OTHER_FILES = {"edbjobs.toml", "edbjobs/edbjobs.toml"}  # of a user, not of the repository
FOLDERS = ("client", "docs", "examples", "protos", "scripts", "server", "tests")


@lru_cache
def _paths() -> list[str]:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
    return [
        f"/{path.relative_to(ROOT).as_posix()}"
        for path in [*files, *ROOT.glob("*.*")]
        if "node_modules" not in path.parts
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    named = set(NAMED.findall(page.read_text())) - OTHER_FILES
    missing = [name for name in sorted(named) if not any(path.endswith(f"/{name}") for path in _paths())]
    assert not missing, f"{page.name} names files that do not exist: {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert named <= targets, f"{page.name} names make targets that do not exist: {named - targets}"


def test_every_setting_and_key_of_the_policy_is_documented_and_no_other() -> None:
    settings, site = (ROOT / "docs" / "settings.md").read_text().split("## The site's policy")
    for text, model in ((settings, Settings), (site, SitePolicy)):
        rows = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
        documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
        assert documented == set(model.model_fields)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_targets(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
