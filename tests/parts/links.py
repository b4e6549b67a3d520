"""The links of README and docs: files that are there, headings that are there."""

import re
from collections.abc import Iterator
from pathlib import Path

_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+?)(?: *<!--.*)?$", re.MULTILINE)


def broken(project: Path) -> list[str]:
    """`page: link` for each link that leads nowhere."""
    pages = [project / "README.md", *sorted((project / "docs").glob("*.md"))]
    return [
        f"{page.name}: {link}" for page in pages for link in _links(page) if _is_bad(page, link)
    ]


def _links(page: Path) -> Iterator[str]:
    yield from _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


def _is_bad(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    if not target.exists():
        return True
    return bool(anchor) and anchor not in _anchors(target)


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them: small letters, '-' for a space, no other signs."""
    headings = _HEADING.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
