"""Fills the tables of docs/results.md from the committed JSON of a reproduction.

    python scripts/write_results.py            # writes docs/results.md anew
    python scripts/write_results.py --check    # only says whether it is up to date

A table stands between `<!-- NAME -->` and `<!-- end -->`, where NAME.json is in docs/data/results.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from skipvsr.evaluation.results import markdown

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS / "results.md"
DATA = DOCS / "data" / "results"
_TABLE = re.compile(r"<!-- (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def filled(text: str) -> str:
    """The text with every table made anew."""
    return _TABLE.sub(lambda match: f"<!-- {match[1]} -->\n{table(match[1])}<!-- end -->", text)


def table(name: str) -> str:
    """Notes and table as Markdown."""
    values = json.loads((DATA / f"{name}.json").read_text())
    return f"{values['notes']}\n\n{markdown([values['header'], *values['rows']])}\n"


def main() -> None:
    """Write, or check."""
    text = RESULTS.read_text()
    new = filled(text)
    if "--check" in sys.argv:
        sys.exit(0 if new == text else "docs/results.md is not what its data says; run python scripts/write_results.py")
    RESULTS.write_text(new)


if __name__ == "__main__":
    main()
