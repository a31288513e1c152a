"""How long a file should be, by what its container says: what is missing to that was cut off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
# Sizes of the packets of a transport stream: plain, with times, with error correction.
_TS_PACKET_BYTES = (188, 192, 204)
_MAX_BOXES = 100_000


def bytes_missing(path: Path, container: str) -> bool:
    """Whether a file ends before its own structure does; False where the container does not say.

    Args:
        container: FFmpeg's name of the format.

    Raises:
        OSError: it cannot be read.
    """
    names = set(container.split(","))
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if "mpegts" in names:
            return all(size % packet for packet in _TS_PACKET_BYTES)
        if "matroska" in names:
            return _matroska_end(file) > size
        if "mov" in names:
            return _last_box_end(file, size) > size
        if "avi" in names:
            return 8 + int.from_bytes(file.read(8)[4:], "little") > size
    return False


def _matroska_end(file: BinaryIO) -> int:
    """End of the first segment; 0 where its size is unknown, as in a live recording."""
    if file.read(4) != _EBML:
        return 0
    header = _variable_int(file)
    if header is None:
        return 0
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return 0
    length = _variable_int(file)
    return 0 if length is None else file.tell() + length


def _variable_int(file: BinaryIO) -> int | None:
    """EBML's: the number of leading zero bits says how many bytes follow; all ones: unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    digits = bytes([first[0] & (0x7F >> more)]) + file.read(more)
    value = int.from_bytes(digits, "big")
    return None if value == (1 << 7 * (more + 1)) - 1 else value


def _last_box_end(file: BinaryIO, size: int) -> int:
    """End of the last box at the top of an MP4 file."""
    end = 0
    for _ in range(_MAX_BOXES):
        file.seek(end)
        header = file.read(8)
        if len(header) < 8:
            break
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        if length < 8:
            # 0: up to the end of the file.
            break
        end += length
        if end >= size:
            break
    return end
