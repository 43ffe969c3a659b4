"""Check the words of the project: `python scripts/check_words.py` (part of `make lint`).

codespell finds misspellings, British spellings and the words of `scripts/words.txt`; phrases of more than one
word are below.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".py", ".md", ".toml", ".sql", ".j2", ".mjs", ".yaml", ".yml", ".sh", ""}
# Generated files, recorded data, and the lists of words themselves. The protos are revised as a whole, later.
SKIPPED = re.compile(r"^(protos/|docs/api\.md|LICENSE|scripts/(check_)?words|.*_pb2|tests/acceptance/state-v\d+/)")
PHRASES = {
    re.compile(r'"""Tells?\b'): "a docstring begins with Return, Build, Set, Read ... (PEP 257)",
    re.compile(r"\bfor ever\b", re.IGNORECASE): "forever, indefinitely",
    re.compile(r"\b(is|are|was|were) wanted\b", re.IGNORECASE): "is requested, is expected",
    re.compile(r"\b(lets?|letting) (it|them|him|jobs?) go\b", re.IGNORECASE): "release",
    re.compile(r"\bin hand\b", re.IGNORECASE): "active",
    re.compile(r"\bnobody knows\b", re.IGNORECASE): "it is unknown",
}


def tracked() -> list[str]:
    """Return the tracked text files, relative to the root."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = (name for name in done.stdout.splitlines() if Path(name).suffix in SUFFIXES and not SKIPPED.match(name))
    return [name for name in names if (ROOT / name).is_file()]


def findings(names: list[str]) -> list[tuple[str, str]]:
    """Return (file, message) for everything that codespell and the phrases find."""
    codespell = Path(sys.executable).with_name("codespell")
    done = subprocess.run([codespell, *names], cwd=ROOT, capture_output=True, text=True)
    if done.stderr or done.returncode not in (0, 65):  # 65: words were found
        sys.exit(f"codespell failed: {done.stderr}")
    found = [(line.removeprefix("./").split(":")[0], line) for line in done.stdout.splitlines() if ": " in line]
    for name in names:
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
            for phrase, text in PHRASES.items():
                if phrase.search(line):
                    found.append((name, f"{name}:{number}: {phrase.pattern} ==> {text}"))
    return found


def main() -> int:
    """Print what is found."""
    found = findings(tracked())
    for _, message in found:
        print(message)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
