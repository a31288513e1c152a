"""Tags and chapters, as they go from a file to what is made of it."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
from av.stream import Stream

if TYPE_CHECKING:
    from av.container.core import Chapter

# What belongs to the old file and not to what it shows.
_DROPPED_TAGS = {"encoder", "major_brand", "minor_version", "compatible_brands", "creation_time", "duration"}


def tags_of(metadata: dict[str, str]) -> dict[str, str]:
    """Those that still hold for the new file."""
    return {key: value for key, value in metadata.items() if key.lower() not in _DROPPED_TAGS}


def with_tags_of(copy: Stream, stream: Stream) -> Stream:
    """The copy, with what the stream says of itself."""
    copy.metadata.update(tags_of(stream.metadata))
    copy.disposition = stream.disposition
    return copy


def chapters_of_part(chapters: list[Chapter], start: Fraction, end: Fraction | None) -> list[Chapter]:
    """The chapters of a part, on its clock."""
    if start == 0 and end is None:
        return chapters
    kept: list[Chapter] = []
    for chapter in chapters:
        unit = chapter["time_base"] or Fraction(1, av.time_base)
        first = max(chapter["start"] * unit, start)
        last = chapter["end"] * unit if end is None else min(chapter["end"] * unit, end)
        if first < last:
            shift = round(start / unit)
            kept.append({**chapter, "start": round(first / unit) - shift, "end": round(last / unit) - shift})
    return kept
