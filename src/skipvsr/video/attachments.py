"""Attachments (fonts, say) and cover images, as each container has them."""

from __future__ import annotations

from pathlib import Path

import av
from av.container import OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Disposition, Stream
from av.video.stream import VideoStream

from skipvsr.video.errors import OPEN_OPTIONS, file_name

# Codecs of cover images: ending and type of the files.
_COVERS = {"png": (".png", "image/png"), "mjpeg": (".jpg", "image/jpeg")}


class Attachments:
    """Puts the attachments and covers of a source into an output.

    Args:
        output: the container.
        source: the file that they are in.
    """

    def __init__(self, output: OutputContainer, source: Path) -> None:
        self._output, self._source = output, source
        self._covers: list[tuple[Stream, bytes]] = []

    def keep(self, stream: Stream) -> bool:
        """Take over an attachment or a cover image, if the container has a place for it."""
        if isinstance(stream, AttachmentStream) and self._output.format.name == "matroska":
            name, kind = stream.name or f"attachment {stream.index}", stream.mimetype or "application/octet-stream"
            self._output.add_attachment(name, kind, stream.data)
            return True
        if not isinstance(stream, VideoStream) or not stream.disposition & Disposition.attached_pic:
            return False
        contents = self._cover(stream.index)
        codec = stream.codec_context.name
        if not contents or codec not in _COVERS:
            return False
        if self._output.format.name == "matroska":
            ending, kind = _COVERS[codec]
            self._output.add_attachment(stream.metadata.get("filename", f"cover{ending}"), kind, contents)
            return True
        if self._output.format.name != "mp4":
            return False
        cover = self._output.add_stream_from_template(stream)
        cover.disposition = Disposition.attached_pic
        self._covers.append((cover, contents))
        return True

    def write_covers(self) -> None:
        """Write the covers; called when the header is written."""
        for stream, contents in self._covers:
            packet = Packet(contents)
            packet.stream, packet.pts, packet.dts = stream, 0, 0
            self._output.mux(packet)

    def _cover(self, index: int) -> bytes:
        """The file that is a cover image."""
        with av.open(file_name(self._source), options=OPEN_OPTIONS, metadata_errors="replace") as container:
            return next((bytes(packet) for packet in container.demux(container.streams[index]) if packet.size), b"")
