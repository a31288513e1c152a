"""Clips of any constant format as 32-bit RGB and back, by VapourSynth's own resizer (zimg)."""

from __future__ import annotations

from skipvsr.vapoursynth.package import vs

_UNSPECIFIED, _SMPTE170M, _BT709 = 2, 6, 1
# Properties that tell what a frame was before it became RGB; the resizer overwrites those of the source.
_WAS = {"matrix": "_SkipVSRMatrix", "range": "_SkipVSRRange", "chromaloc": "_SkipVSRChromaLocation"}


def to_rgb(clip: vs.VideoNode) -> vs.VideoNode:
    """A clip as RGBS, full range. Matrix, range and place of the chroma are those of each frame's properties."""
    if clip.format.id == vs.RGBS:
        return vs.core.std.RemoveFrameProps(clip, list(_WAS.values()))  # a node of our own, whose cache we may set

    def remember(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        for name, value in _description(clip, f).items():
            frame.props[_WAS[name]] = value
        return frame

    tagged = vs.core.std.ModifyFrame(clip, clip, remember)
    matrix = {} if clip.format.color_family == vs.RGB else {"matrix_in": _usual_matrix(clip)}
    return vs.core.resize.Bicubic(tagged, format=vs.RGBS, **matrix)


def from_rgb(large: vs.VideoNode, rgb: vs.VideoNode, clip: vs.VideoNode) -> vs.VideoNode:
    """A clip that was made of `rgb`, which `to_rgb` made of `clip`, in the format of `clip`: each frame with its own matrix."""
    if clip.format.id == vs.RGBS:
        return large
    made: dict[tuple[int | None, ...], vs.VideoNode] = {}

    def convert(n: int, f: vs.VideoFrame) -> vs.VideoNode:
        was = {name: f.props.get(prop) for name, prop in _WAS.items()}
        key = tuple(was.values())
        if key not in made:
            options = {name: value for name, value in was.items() if value is not None}
            made[key] = vs.core.resize.Bicubic(large, format=clip.format.id, **options)
        return made[key]

    template = vs.core.std.BlankClip(large, format=clip.format.id, keep=True)
    converted = vs.core.std.FrameEval(template, convert, prop_src=[rgb], clip_src=[large])
    return vs.core.std.RemoveFrameProps(converted, list(_WAS.values()))


def _description(clip: vs.VideoNode, frame: vs.VideoFrame) -> dict[str, int]:
    """What the resizer has to be told of a frame to go back to its format."""
    props, options = frame.props, dict[str, int]()
    if clip.format.color_family != vs.RGB:
        matrix = props.get("_Matrix", _UNSPECIFIED)
        options["matrix"] = _usual_matrix(clip) if matrix == _UNSPECIFIED else matrix
    if "_Range" in props:
        options["range"] = props["_Range"]
    elif "_ColorRange" in props:  # before VapourSynth's interface 4.2, and the other way round
        options["range"] = 1 - props["_ColorRange"]
    if clip.format.subsampling_w or clip.format.subsampling_h:
        options["chromaloc"] = props.get("_ChromaLocation", 0)
    return options


def _usual_matrix(clip: vs.VideoNode) -> int:
    """Where a frame does not say: BT.601 up to 576 lines and 1,024 columns, else BT.709, as for files."""
    return _SMPTE170M if clip.height <= 576 and clip.width <= 1024 else _BT709
