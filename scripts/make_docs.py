"""Write the documentation pages that are made from code: python scripts/make_docs.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the tree that this script is in, installed or not

from analogpde.manual import as_markdown, chips_as_markdown  # noqa: E402

PAGES: tuple[tuple[Path, Callable[[], str]], ...] = (
    (ROOT / "docs" / "options.md", as_markdown),
    (ROOT / "docs" / "chips.md", chips_as_markdown),
)


def main() -> None:
    """Write every page that has changed, and say which."""
    for path, render in PAGES:
        text = render()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            print(f"{path.relative_to(ROOT)}: up to date")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: written")


if __name__ == "__main__":
    main()
