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


def image_only(path: Path) -> io.BytesIO:
    """A PNG file reduced to the chunks of the image.

    Args:
        path: the file; of a damaged or cut-off file, all that is left is returned.

    Raises:
        InputError: its header says that it is too large or too small, or its data decompress to more than it says.
    """
    kept = io.BytesIO()
    kept.write(_SIGNATURE)
    header, inflater, inflated = b"", zlib.decompressobj(), 0
    for name, chunk in _chunks(path):
        data = chunk[8:-4]
        if name == b"IHDR" and len(data) == 13:
            header = data
            check_size(path, *struct.unpack(">II", data[:8]))
        if name == b"IDAT" and header:
            inflated += _inflated_bytes(inflater, data, _image_bytes(header) - inflated)
            if inflated > _image_bytes(header):
                width, height = struct.unpack(">II", header[:8])
                raise InputError(
                    f"{path} says that it is {width}x{height} and holds more data than that; it is damaged or malicious"
                )
        kept.write(chunk)
    kept.seek(0)
    return kept


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


def _inflated_bytes(inflater: zlib._Decompress, data: bytes, limit: int) -> int:
    """How many bytes more data decompress to; just over the limit where it is exceeded. Damage is the decoder's to find."""
    count = 0
    try:
        while data and not inflater.eof and count <= limit:
            count += len(inflater.decompress(data, _STEP_BYTES))
            data = inflater.unconsumed_tail
    except zlib.error:
        return count
    return count
