"""How long a file should be, by what its container says: what is missing to that was cut off."""

from __future__ import annotations

import os

from skipvsr.video.source import SourceFile

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
# Sizes of the packets of a transport stream: plain, with times, with error correction.
_TS_PACKET_BYTES = (188, 192, 204)
_BOXES = {
    b"ftyp",
    b"styp",
    b"moov",
    b"mdat",
    b"free",
    b"skip",
    b"wide",
    b"moof",
    b"mfra",
    b"sidx",
    b"meta",
    b"uuid",
    b"udta",
}
_MAX_BOXES = 100_000


def bytes_missing(file: SourceFile, container: str) -> bool:
    """Whether a file ends before its own structure does; False where the container does not say.

    Args:
        file: read from its beginning.
        container: FFmpeg's name of the format.
    """
    names = set(container.split(","))
    size = file.size()
    file.seek(0)
    if "mpegts" in names:
        return all(size % packet for packet in _TS_PACKET_BYTES)
    if "matroska" in names:
        return _matroska_end(file) > size
    if "mov" in names:
        return _last_box_end(file, size) > size
    if "avi" in names:
        return 8 + int.from_bytes(file.read(8)[4:], "little") > size
    return False


def _matroska_end(file: SourceFile) -> int:
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


def _variable_int(file: SourceFile) -> int | None:
    """EBML's: the number of leading zero bits says how many bytes follow; all ones: unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    digits = bytes([first[0] & (0x7F >> more)]) + file.read(more)
    value = int.from_bytes(digits, "big")
    return None if value == (1 << 7 * (more + 1)) - 1 else value


def _last_box_end(file: SourceFile, size: int) -> int:
    """End of the last box at the top of an MP4 file; what is no box of the video is as long as it is."""
    end = 0
    for _ in range(_MAX_BOXES):
        file.seek(end)
        header = file.read(8)
        if len(header) < 8 or header[4:] not in _BOXES:
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
