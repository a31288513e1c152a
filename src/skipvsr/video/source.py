"""Files are read by Python and handed to FFmpeg, which would take a read error of the disk for the end of the file."""

from __future__ import annotations

import errno
import os
from pathlib import Path


class SourceFile:
    """A file open for reading, as PyAV takes it.

    Args:
        path: a plain file.

    Raises:
        OSError: it cannot be opened. Later errors end the reading and are kept in `error`.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path.absolute())
        self.error: OSError | None = None
        self._file = path.open("rb", buffering=0)
        self._before = os.fstat(self._file.fileno())

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end, and after an error."""
        if self.error is not None:
            return b""
        try:
            return self._file.read(size) or b""
        except OSError as error:
            self.error = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in the file; returns it, or a negative error code where FFmpeg asks for the impossible."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, OverflowError):
            return -errno.EINVAL

    def tell(self) -> int:
        """Place in the file."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def size(self) -> int:
        """Bytes that the file has now; 0 where that cannot be known."""
        try:
            return os.fstat(self._file.fileno()).st_size
        except OSError:
            return 0

    def changed(self) -> str | None:
        """What was done to the file since it was opened; None: nothing."""
        try:
            now = os.fstat(self._file.fileno())
        except OSError as error:
            return f"vanished while it was read ({error.strerror})"
        if now.st_size != self._before.st_size:
            return f"changed while it was read, from {self._before.st_size:,} to {now.st_size:,} bytes"
        if now.st_mtime_ns != self._before.st_mtime_ns:
            return "was written to while it was read"
        return None
