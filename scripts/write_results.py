"""Fills the tables of docs/results.md from the committed JSON of a reproduction.

    python scripts/write_results.py            # writes docs/results.md anew
    python scripts/write_results.py --check    # only says whether it is up to date

A table stands between `<!-- NAME -->` and `<!-- end -->`, where docs/data/results/NAME.json is what `skipvsr reproduce` wrote;
or what `skipvsr evaluate` did, of which the parts are shown.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from skipvsr.evaluation.results import PART_NAMES, markdown

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
    if "notes" not in values:
        return parts(values["rows"])
    return f"{values['notes']}\n\n{markdown([values['header'], *values['rows']])}\n"


def parts(rows: list[dict[str, Any]]) -> str:
    """A line for each part of the network, two columns for each setting."""
    labels = ["every block" if row["policy"] == "full" else f"{row['policy']} {row['value']:g}" for row in rows]
    lines = [["part", *(f"{label}, {what}" for label in labels for what in ("GMAC", "s"))]]
    for part in dict.fromkeys(part for row in rows for part in (*row["gmacs"], *row["seconds"])):
        line: list[str] = [PART_NAMES.get(part, str(part))]
        for row in rows:
            gmacs, seconds = row["gmacs"].get(part), row["seconds"].get(part)
            line += ["" if gmacs is None else f"{gmacs:.3f}", "" if seconds is None else f"{seconds['median']:.4f}"]
        lines.append(line)
    return f"{markdown(lines)}\n"


def main() -> None:
    """Write, or check."""
    text = RESULTS.read_text()
    new = filled(text)
    if "--check" in sys.argv:
        sys.exit(0 if new == text else "docs/results.md is not what its data says; run python scripts/write_results.py")
    RESULTS.write_text(new)


if __name__ == "__main__":
    main()
