"""What every command prints alike: JSON for scripts, a progress bar for people."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def add_json(parser: Any) -> None:
    """Add --json, which means the same in every command."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON instead of text: one object a line, each with an \"event\", the last one 'report' or 'error'",
    )


def print_event(event: str, **values: Any) -> None:
    """Print one line of JSON on standard output, at once."""
    print(json.dumps({"event": event, **values}), flush=True)


def progress_bar(unit: str, *, hidden: bool = False, total: int | None = None) -> tqdm[Any]:
    """A bar on standard error that disappears at the end; not shown where `hidden`, or where nobody watches a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, unit=f" {unit}", leave=False, disable=hidden or not sys.stderr.isatty())
