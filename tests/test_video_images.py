"""Folders of images and the colour conversion beneath everything."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from skipvsr.errors import DecodeError, InputError, OutputError
from skipvsr.upscale.job import upscale_video
from skipvsr.video.colour import BT709, BT2020_NCL, FULL, LIMITED, SMPTE170M, ColourSpec, from_rgb, to_rgb
from skipvsr.video.image_folder import ImageFolderReader, ImageFolderWriter
from skipvsr.video.images import read_image, read_image_and_alpha, write_image
from skipvsr.video.open import open_writer
from tests.media import picture

KR_KB = {SMPTE170M: (0.299, 0.114), BT709: (0.2126, 0.0722), BT2020_NCL: (0.2627, 0.0593)}


def rgb_of(yuv: np.ndarray, matrix: int, colour_range: int) -> np.ndarray:
    """The formula of ITU-T H.273 for 8 bit: (3, H, W) YUV -> (H, W, 3) RGB, 0 to 255."""
    kr, kb = KR_KB[matrix]
    luma, cb, cr = yuv.astype(np.float64)
    if colour_range == LIMITED:
        luma, cb, cr = (luma - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    else:
        luma, cb, cr = luma / 255, (cb - 128) / 255, (cr - 128) / 255
    red, blue = luma + 2 * (1 - kr) * cr, luma + 2 * (1 - kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return 255 * np.stack((red, green, blue), axis=-1).clip(0, 1)


@pytest.mark.parametrize("matrix", KR_KB)
@pytest.mark.parametrize(("colour_range", "tolerance"), [(LIMITED, 0.75), (FULL, 1.25)])
def test_yuv_becomes_rgb_by_the_formula(matrix: int, colour_range: int, tolerance: float):
    yuv = np.random.default_rng(matrix).integers(16, 236, (3, 48, 64), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(yuv), format="yuv444p")
    frame.colorspace, frame.color_range = matrix, colour_range
    found = to_rgb(frame, ColourSpec(matrix, colour_range))
    assert np.abs(found - rgb_of(yuv, matrix, colour_range)).max() <= tolerance


@pytest.mark.parametrize("matrix", KR_KB)
@pytest.mark.parametrize(("colour_range", "tolerance"), [(LIMITED, 2), (FULL, 2)])
def test_colours_survive_there_and_back(matrix: int, colour_range: int, tolerance: int):
    pixels = np.random.default_rng(3).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    colour = ColourSpec(matrix, colour_range)
    again = to_rgb(from_rgb(pixels, "yuv444p", colour), colour)
    assert np.abs(again.astype(int) - pixels).max() <= tolerance


def test_flat_colours_survive_subsampling():
    colour = ColourSpec(BT709, LIMITED)
    for value in ((255, 0, 0), (12, 200, 90), (128, 128, 128), (255, 255, 255), (0, 0, 0)):
        pixels = np.full((32, 48, 3), value, np.uint8)
        assert np.abs(to_rgb(from_rgb(pixels, "yuv420p", colour), colour).astype(int) - pixels).max() <= 2


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp"])
def test_images_come_back_exactly(tmp_path: Path, ending: str):
    pixels = picture(5, 40, 56)
    write_image(tmp_path / f"one{ending}", pixels)
    assert np.array_equal(read_image(tmp_path / f"one{ending}"), pixels)
    assert np.array_equal(np.asarray(Image.open(tmp_path / f"one{ending}").convert("RGB")), pixels)


@pytest.mark.parametrize("ending", [".png", ".tiff"])
def test_sixteen_bits_come_back_exactly(tmp_path: Path, ending: str):
    pixels = np.random.default_rng(0).integers(0, 65536, (24, 32, 3), dtype=np.uint16)
    write_image(tmp_path / f"deep{ending}", pixels)
    assert np.array_equal(read_image(tmp_path / f"deep{ending}"), pixels)


def test_jpeg_is_near(tmp_path: Path):
    pixels = np.full((32, 48, 3), (40, 160, 220), np.uint8)
    write_image(tmp_path / "flat.jpg", pixels)
    for found in (read_image(tmp_path / "flat.jpg"), np.asarray(Image.open(tmp_path / "flat.jpg"))):
        assert np.abs(found.astype(int) - pixels).max() <= 3


def test_grey_and_transparent_images(tmp_path: Path):
    grey = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2))
    rgba = np.random.default_rng(0).integers(0, 256, (24, 32, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    assert np.array_equal(read_image(tmp_path / "clear.png"), rgba[..., :3])


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        write_image(folder / name, picture(number, 24, 32))
    return folder


def test_a_folder_is_read_in_order_and_written_under_the_same_names(tmp_path: Path):
    folder = fill(tmp_path / "in", "f8.png", "f9.png", "f10.png")
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_bytes(b"neither")
    reader = ImageFolderReader(folder)
    assert reader.names == ["f8.png", "f9.png", "f10.png"]
    frames = list(reader)
    assert [frame.pts for frame in frames] == [0, 1, 2]
    for number, frame in enumerate(frames):
        assert np.array_equal(frame.pixels, picture(number, 24, 32))
    with ImageFolderWriter(tmp_path / "out", reader.names) as writer:
        for frame in frames:
            writer.write(frame)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert ImageFolderReader(tmp_path / "out").names == reader.names


def test_a_hole_in_a_sequence_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"no image 3 \(after 2 comes 4\)"):
        ImageFolderReader(fill(tmp_path / "in", "a1.png", "a2.png", "a4.png"))
    with pytest.raises(InputError, match="two images of number 1"):
        ImageFolderReader(fill(tmp_path / "twice", "a1.png", "a01.png"))
    assert len(ImageFolderReader(fill(tmp_path / "free", "sky.png", "sea7.png")).files) == 2


def test_mixed_sizes_are_named(tmp_path: Path):
    folder = fill(tmp_path / "in", "1.png", "2.png")
    write_image(folder / "3.png", picture(0, 24, 36))
    found = iter(ImageFolderReader(folder))
    assert next(found).pts == 0
    assert next(found).pts == 1
    with pytest.raises(DecodeError, match=r"3\.png is 24x36.* 24x32"):
        next(found)


def test_other_errors(tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no images"):
        ImageFolderReader(empty)
    write_image(tmp_path / "small.png", picture(0, 12, 32))
    with pytest.raises(InputError, match="at least 16"):
        read_image(tmp_path / "small.png")
    with pytest.raises(OutputError, match="cannot be written"):
        write_image(tmp_path / "x.gif", picture(0, 24, 32))
    with pytest.raises(OutputError, match=r"written as a\.png"):
        ImageFolderWriter(tmp_path / "out", ["a.webp", "a.png"])
    with pytest.raises(RuntimeError, match="stop"), ImageFolderWriter(tmp_path / "out", ["a.png"]):
        raise RuntimeError("stop")
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_replacing_a_folder_loses_nothing_else(tmp_path: Path):
    (tmp_path / "in").mkdir()
    source = fill(tmp_path / "in" / "frames", "1.png", "2.png")
    home = tmp_path / "home"
    home.mkdir()
    (home / "precious.txt").write_text("keep me")
    reader = ImageFolderReader(source)
    with pytest.raises(OutputError, match=r"more than images \(precious.txt\)"):
        open_writer(home, 128, 96, reader, overwrite=True)
    for path in (tmp_path / "in", source, source / "..", source / "."):
        with pytest.raises(OutputError, match="input"):
            open_writer(path, 128, 96, reader, overwrite=True)
    assert (home / "precious.txt").read_text() == "keep me"
    assert sorted(path.name for path in source.iterdir()) == ["1.png", "2.png"]


def test_a_folder_of_images_is_replaced_whole(tmp_path: Path):
    reader = ImageFolderReader(fill(tmp_path / "in", "1.png"))
    fill(tmp_path / "out", "old1.png", "old2.png")
    with pytest.raises(RuntimeError, match="stop"), open_writer(tmp_path / "out", 32, 24, reader, overwrite=True):
        raise RuntimeError("stop")
    assert ImageFolderReader(tmp_path / "out").names == ["old1.png", "old2.png"]
    with open_writer(tmp_path / "out", 32, 24, reader, overwrite=True) as writer:
        writer.write(next(iter(reader)))
    assert ImageFolderReader(tmp_path / "out").names == ["1.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_alpha_comes_back_exactly(tmp_path: Path):
    random = np.random.default_rng(0)
    for name, peak, dtype in (("a.png", 256, np.uint8), ("b.png", 65536, np.uint16), ("a.tif", 256, np.uint8),
                              ("b.tif", 65536, np.uint16), ("a.bmp", 256, np.uint8)):  # fmt: skip
        rgba = random.integers(0, peak, (24, 32, 4), dtype=dtype)
        write_image(tmp_path / name, rgba[..., :3], rgba[..., 3])
        pixels, alpha = read_image_and_alpha(tmp_path / name)
        assert alpha is not None
        assert np.array_equal(np.dstack((pixels, alpha)), rgba), name
    with pytest.raises(OutputError, match="no alpha"):
        write_image(tmp_path / "a.jpg", picture(0), np.zeros((32, 48), np.uint8))


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_upscaled_and_written_back(tmp_path: Path, ending: str, dtype: type[np.unsignedinteger]):
    peak = int(np.iinfo(dtype).max)
    slope = np.repeat(np.linspace(0, peak, 32)[None], 24, axis=0).round().astype(dtype)
    (tmp_path / "in").mkdir()
    pixels = np.full((24, 32, 3), peak // 3, dtype)
    write_image(tmp_path / "in" / f"1{ending}", pixels, slope)
    write_image(tmp_path / "in" / f"2{ending}", pixels)
    upscale_video(tmp_path / "in", tmp_path / "out", "bicubic")
    found, alpha = read_image_and_alpha(tmp_path / "out" / f"1{ending}")
    assert alpha is not None
    assert (found.dtype, alpha.dtype, alpha.shape) == (dtype, dtype, (96, 128))
    assert np.abs(found.astype(int) - peak // 3).max() == 0
    wanted = np.interp((np.arange(128) + 0.5) / 4 - 0.5, np.arange(32), slope[0].astype(float))
    assert np.abs(alpha - wanted)[:, 12:-12].max() <= max(1, peak / 10_000)
    assert read_image_and_alpha(tmp_path / "out" / f"2{ending}")[1] is None


def test_kinds_of_png(tmp_path: Path):
    """Pillow's reading is the measure, where it has the same depth."""
    random = np.random.default_rng(0)
    rgb = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    palette = Image.fromarray(rgb).quantize(64)
    images: dict[str, tuple[Image.Image, dict]] = {
        "palette": (palette, {}),
        "palette with a transparent colour": (palette, {"transparency": 5}),
        "one bit": (Image.fromarray(rgb[..., 0]).convert("1"), {}),
        "grey": (Image.fromarray(rgb[..., 0]), {}),
        "grey with a transparent level": (Image.fromarray(rgb[..., 0]), {"transparency": int(rgb[3, 3, 0])}),
        "grey and alpha": (Image.fromarray(rgb[..., :2], "LA"), {}),
        "a transparent colour": (Image.fromarray(rgb), {"transparency": tuple(int(level) for level in rgb[3, 3])}),
    }
    for name, (image, options) in images.items():
        image.save(tmp_path / f"{name}.png", **options)
        wanted = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGBA"))
        pixels, alpha = read_image_and_alpha(tmp_path / f"{name}.png")
        assert np.array_equal(pixels, wanted[..., :3]), name
        if wanted[..., 3].min() == 255:
            assert alpha is None, name
        else:
            assert alpha is not None, name
            assert np.array_equal(alpha, wanted[..., 3]), name


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bit_grey(tmp_path: Path, ending: str):
    grey = np.random.default_rng(0).integers(0, 65536, (24, 32), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / f"grey{ending}")
    assert np.array_equal(read_image(tmp_path / f"grey{ending}"), np.repeat(grey[..., None], 3, axis=2))


def smooth() -> np.ndarray:
    y, x = np.mgrid[:32, :48]
    return np.stack((x * 5, y * 7, 255 - x * 4), axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "mode", "options", "tolerance"),
    [
        ("444.jpg", "RGB", {"quality": 100, "subsampling": 0}, 2),
        ("422.jpg", "RGB", {"quality": 100, "subsampling": 1}, 6),
        ("420.jpg", "RGB", {"quality": 100, "subsampling": 2}, 6),
        ("rgb.jpg", "RGB", {"quality": 100, "keep_rgb": True}, 2),
        ("progressive.jpg", "RGB", {"quality": 95, "progressive": True}, 6),
        ("grey.jpg", "L", {"quality": 100}, 2),
        ("cmyk.jpg", "CMYK", {"quality": 100}, 2),
        ("cmyk.tif", "CMYK", {}, 2),
        ("ycbcr.tif", "YCbCr", {}, 2),
        ("lzw.tif", "RGB", {"compression": "tiff_lzw"}, 0),
        ("inverted.tif", "L", {"tiffinfo": {262: 0}}, 0),
        ("bits.tif", "1", {}, 0),
        ("lossless.webp", "RGB", {"lossless": True}, 0),
        ("lossy.webp", "RGB", {"quality": 90}, 4),
    ],
)
def test_kinds_of_photographs(tmp_path: Path, name: str, mode: str, options: dict, tolerance: int):
    Image.fromarray(smooth()).convert(mode).save(tmp_path / name, **options)
    wanted = np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)
    pixels, alpha = read_image_and_alpha(tmp_path / name)
    assert alpha is None
    assert np.abs(pixels - wanted).max() <= tolerance


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_keeps_its_alpha_as_png(tmp_path: Path, lossless: bool):
    opacity = smooth()[..., 0]
    (tmp_path / "in").mkdir()
    Image.fromarray(np.dstack((smooth(), opacity))).save(tmp_path / "in" / "a.webp", lossless=lossless)
    alpha = read_image_and_alpha(tmp_path / "in" / "a.webp")[1]
    assert alpha is not None
    assert np.array_equal(alpha, opacity)
    upscale_video(tmp_path / "in", tmp_path / "out", "bicubic")
    assert Image.open(tmp_path / "out" / "a.png").mode == "RGBA"


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied(tmp_path: Path, ending: str, orientation: int):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / f"1{ending}"
    exif = Image.Exif()
    exif[0x112] = orientation
    options = {".tif": {"tiffinfo": {0x112: orientation}}, ".jpg": {"exif": exif, "quality": 100, "subsampling": 0}}
    Image.fromarray(smooth()).save(path, **options.get(ending, {"exif": exif, "lossless": True}))
    wanted = {
        1: smooth(), 2: smooth()[:, ::-1], 3: smooth()[::-1, ::-1], 4: smooth()[::-1],
        5: smooth().swapaxes(0, 1), 6: np.rot90(smooth(), -1),
        7: smooth().swapaxes(0, 1)[::-1, ::-1], 8: np.rot90(smooth()),
    }[orientation]  # fmt: skip
    reader = ImageFolderReader(tmp_path / "in")
    assert (reader.info.height, reader.info.width) == wanted.shape[:2]
    assert np.abs(next(iter(reader)).pixels - wanted.astype(int)).max() <= (3 if ending == ".jpg" else 0)


def test_jpeg_inside_tiff_is_refused(tmp_path: Path):
    Image.fromarray(smooth()).save(tmp_path / "a.tif", compression="jpeg")
    with pytest.raises(InputError, match=r"a\.tif is JPEG inside TIFF"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("ratio", [0.9, 0.99])
def test_a_jpeg_that_was_cut_off_does_not_pass_for_a_whole_one(tmp_path: Path, ratio: float):
    """FFmpeg fills what is missing with grey. What follows the end of an image is no fault."""
    path = tmp_path / "a.jpg"
    write_image(path, picture(0))
    data, whole = path.read_bytes(), read_image(path)
    path.write_bytes(data + b"something behind it")
    assert np.array_equal(read_image(path), whole)
    path.write_bytes(data[: int(ratio * len(data))])
    with pytest.raises(InputError, match="was cut off"):
        read_image(path)
