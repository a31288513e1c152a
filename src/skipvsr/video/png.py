"""Untrusted PNG files: the decoder gets only the chunks that make up the image, and not more data than the image has."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from skipvsr.errors import InputError
from skipvsr.video.limits import check_size

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks without which the image or its colours would be others, and the EXIF orientation. Texts, profiles, previews and
# frames of an animation are left out: they may be of any size, also once they are decompressed.
_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"sBIT", b"eXIf"}
_MAX_EXIF_BYTES = 1 << 20
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Of Adam7: each has rows of its own, with filter bytes, that may end within a byte.
_PASSES = 7
_STEP_BYTES = 1 << 20


def is_png(path: Path) -> bool:
    """Whether a file begins with PNG's signature; its name does not matter."""
    with path.open("rb") as file:
        return file.read(len(_SIGNATURE)) == _SIGNATURE


def image_only(path: Path) -> bytes:
    """A PNG file reduced to the chunks of the image, whose data are inflated already.

    They have to be inflated here to be counted, which is most of the work of decoding a PNG, so the decoder gets them stored.

    Args:
        path: the file; of a damaged or cut-off file, all that is left is returned, as it is.

    Raises:
        InputError: its header says that it is too large or too small, or its data decompress to more than it says.
    """
    before, data, after = [_SIGNATURE], [], []
    header, inflater, inflated, most = b"", zlib.decompressobj(), [], 0
    for name, chunk in _chunks(path):
        if name != b"IDAT":
            (after if data else before).append(chunk)
        if name == b"IHDR" and len(chunk) == 8 + 13 + 4:
            header = chunk[8:-4]
            check_size(path, *struct.unpack(">II", header[:8]))
            most = _image_bytes(header)
        if name == b"IDAT":
            data.append(chunk)
        if name == b"IDAT" and header:
            most -= _inflate(inflater, chunk[8:-4], most, inflated)
            if most < 0:
                width, height = struct.unpack(">II", header[:8])
                raise InputError(
                    f"{path} says that it is {width}x{height} and holds more data than that; it is damaged or malicious"
                )
    if inflater.eof:
        data = [_stored(b"".join(inflated))]
    return b"".join([*before, *data, *after])


def _stored(pixels: bytes) -> bytes:
    """An IDAT chunk of data that are not compressed."""
    body = b"IDAT" + zlib.compress(pixels, level=0)
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Names and whole chunks, of those that are kept; the last may be cut off."""
    with path.open("rb") as file:
        file.seek(len(_SIGNATURE))
        while len(start := file.read(8)) == 8:
            length, name = int.from_bytes(start[:4], "big"), start[4:]
            if name not in _KEPT or (name == b"eXIf" and length > _MAX_EXIF_BYTES):
                file.seek(length + 4, io.SEEK_CUR)
                continue
            yield name, start + _read(file, length + 4)
            if name == b"IEND":
                return


def _read(file: BinaryIO, size: int) -> bytes:
    """Up to `size` bytes; memory is taken only for those that are there."""
    parts = []
    while size > 0 and (part := file.read(min(size, _STEP_BYTES))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _image_bytes(header: bytes) -> int:
    """How many bytes the image of a header has at most, a filter byte for each row."""
    width, height, depth, kind = struct.unpack(">IIBB", header[:10])
    row = (width * depth * _SAMPLES.get(kind, 4) + 7) // 8 + 1
    return row * height + _PASSES * (height + width) + 64


def _inflate(inflater: zlib._Decompress, data: bytes, limit: int, parts: list[bytes]) -> int:
    """Add what data decompress to; returns how many bytes, just over the limit where it is exceeded.

    Damage is the decoder's to find: nothing more comes of the data then, and the stream never ends.
    """
    count = 0
    try:
        while data and not inflater.eof and count <= limit:
            parts.append(inflater.decompress(data, _STEP_BYTES))
            count += len(parts[-1])
            data = inflater.unconsumed_tail
    except zlib.error:
        return count
    return count
