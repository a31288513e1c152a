"""How long a file should be according to its container; a shorter one was cut off."""

from __future__ import annotations

import os
import struct

from skipvsr.video.source import SourceFile

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
# Sizes of the packets of a transport stream: plain, with times, with error correction.
_TS_PACKET_BYTES = (188, 192, 204)
_BOXES = {
    b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"mfra", b"sidx", b"meta", b"uuid", b"udta",
}  # fmt: skip
_MAX_BOXES = 100_000
# Where headers and trailers are looked for.
_HEADER_BYTES = _TRAILER_BYTES = 1 << 16
# FLV's property of the size of the file: its name, and the mark of a number.
_FLV_SIZE = b"\x00\x08filesize\x00"
# ASF's object of file properties; its size and the file's identity come before the size of the file.
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_SIZE_OFFSET, _ASF_FLAGS_OFFSET, _ASF_BROADCAST = 16 + 8 + 16, 16 + 8 + 64, 1
# MXF's header partition: the key up to its version, which the length follows.
_MXF_HEADER = bytes.fromhex("060e2b34020501010d0102010102")
_OGG_LAST_PAGE = 4
_PNG_END = b"IEND\xaeB`\x82"


def bytes_missing(file: SourceFile, container: str, packets: int = 0, packet_bytes: int = 0) -> bool:
    """Whether a file ends before its own structure does; False where the container does not say.

    Args:
        file: read from its beginning.
        container: FFmpeg's name of the format.
        packets, packet_bytes: of the video stream, that were read.
    """
    names = set(container.split(","))
    size = file.size()
    if "mpegts" in names:
        return all(size % packet for packet in _TS_PACKET_BYTES)
    if "dv" in names:
        return size != packet_bytes
    if "yuv4mpegpipe" in names:
        return not _is_whole_y4m(_start(file), size, packets, packet_bytes)
    if "gif" in names:
        return not _end(file, size).rstrip(b"\0").endswith(b";")
    if "apng" in names:
        return _PNG_END not in _end(file, size)
    if "ogg" in names:
        return not _ends_with_last_page(_end(file, size))
    return _said_size(file, names, size) > size


def _said_size(file: SourceFile, names: set[str], size: int) -> int:
    """How many bytes the file should have at least; 0 where the container does not say."""
    start = _start(file)
    file.seek(0)
    if "matroska" in names:
        return _matroska_end(file)
    if "mov" in names:
        return _last_box_end(file, size)
    if "avi" in names:
        return 8 + int.from_bytes(start[4:8], "little")
    if "flv" in names:
        return _flv_size(start)
    if "asf" in names:
        return _asf_size(start)
    if "mxf" in names:
        return _mxf_footer(start)
    return 0


def _start(file: SourceFile) -> bytes:
    file.seek(0)
    return file.read(_HEADER_BYTES)


def _end(file: SourceFile, size: int) -> bytes:
    file.seek(max(0, size - _TRAILER_BYTES))
    return file.read(_TRAILER_BYTES)


def _is_whole_y4m(start: bytes, size: int, packets: int, packet_bytes: int) -> bool:
    """A line, then frames with a line each."""
    header = start.find(b"\n") + 1
    line = start.find(b"\n", header) + 1 - header
    return size == header + packets * line + packet_bytes


def _ends_with_last_page(end: bytes) -> bool:
    """Whether the last page of an Ogg file is whole, and says that it is the last of its stream."""
    page = end[end.rfind(b"OggS") :]
    if len(page) < 27:
        return False
    lengths = page[27 : 27 + page[26]]
    return len(page) >= 27 + page[26] + sum(lengths) and bool(page[5] & _OGG_LAST_PAGE)


def _flv_size(start: bytes) -> int:
    place = start.find(_FLV_SIZE)
    number = start[place + len(_FLV_SIZE) :][:8] if place >= 0 else b""
    value = struct.unpack(">d", number)[0] if len(number) == 8 else 0.0
    return int(value) if 0 <= value < 1 << 62 else 0


def _asf_size(start: bytes) -> int:
    """0 for a broadcast: its size was not known when the header was written."""
    place = start.find(_ASF_PROPERTIES)
    if place < 0 or len(start) < place + _ASF_FLAGS_OFFSET + 4:
        return 0
    (size,) = struct.unpack_from("<Q", start, place + _ASF_SIZE_OFFSET)
    (flags,) = struct.unpack_from("<I", start, place + _ASF_FLAGS_OFFSET)
    return 0 if flags & _ASF_BROADCAST else size


def _mxf_footer(start: bytes) -> int:
    """Where the footer begins, and a byte of it; 0 where the header does not say."""
    place = start.find(_MXF_HEADER)
    if place < 0 or len(start) < place + 64:
        return 0
    length = start[place + 16]
    # Two numbers for the version, the size of a grid, then the places of this partition, the one before and the footer.
    values = place + 17 + (length & 0x7F if length & 0x80 else 0) + 8
    footer = int.from_bytes(start[values + 16 : values + 24], "big")
    return footer + 1 if footer else 0


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
    """End of the last box at the top level of an MP4 file. Whatever follows the boxes of a video is not counted."""
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
