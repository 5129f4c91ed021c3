"""What the Markdown pages say, for tests that hold them to it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of any level."""
    start = text.index(f"{heading}\n") + len(heading)
    following = re.search(r"^#+ ", text[start:], re.MULTILINE)
    return text[start : start + following.start()] if following else text[start:]


def commands(text: str) -> list[str]:
    """The shell commands in the indented blocks, one each, without their comments."""
    lines = re.findall(r"^    (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    joined = re.sub(r" *\\\n *", " ", "\n".join(lines))
    return [re.sub(r"\s+# .*", "", line) for line in joined.splitlines() if line.strip()]


def pages() -> list[Path]:
    """Every Markdown page of the project."""
    folders = (
        ROOT,
        ROOT / "docs",
        ROOT / "insighio",
        *(p for p in (ROOT / "examples").rglob("*") if p.is_dir()),
    )
    found = [page for folder in (*folders, ROOT / "examples") for page in folder.glob("*.md")]
    return sorted(set(found))
