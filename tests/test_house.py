"""How the house is kept: short modules and functions, and one place where streams are put together."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "skipvsr"
MOST_LINES_OF_A_MODULE = 300
# Of a function, without its docstring.
MOST_LINES_OF_A_FUNCTION = 60


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def modules(*folders: Path) -> list[Path]:
    found = sorted(path for folder in folders for path in folder.rglob("*.py"))
    assert found
    return found


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and length in lines of each function, docstring excluded."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            length = (node.end_lineno or 0) - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                length -= (first.end_lineno or 0) - first.lineno + 1
            yield node.name, length


def callers(name: str) -> set[str]:
    """The modules of the package that call a function or make an object of this name."""
    found = set()
    for path in modules(PACKAGE):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called == name:
                    found.add(path.relative_to(PACKAGE).as_posix())
    return found


def test_modules_are_short():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules(PACKAGE)}
    long = {
        path.relative_to(ROOT).as_posix(): lines for path, lines in lengths.items() if lines > MOST_LINES_OF_A_MODULE
    }
    assert long == {}, "a module that is longer is two ideas"


def test_functions_are_short():
    long = {
        f"{path.relative_to(ROOT)}: {name}": lines
        for path in modules(PACKAGE, ROOT / "scripts", ROOT / "tests")
        for name, lines in functions(path)
        if lines > MOST_LINES_OF_A_FUNCTION
    }
    assert long == {}


@pytest.mark.parametrize(
    ("name", "homes"),
    [
        # A stream with routing, budget and memory fallback is put together in one place, which `Upscaler.stream` calls.
        ("upscale_stream", {"inference/frame_stream.py"}),
        ("FrameStream", {"inference/upscaler.py"}),
        ("BudgetAccount", {"inference/frame_stream.py"}),
        ("SpeedController", {"inference/frame_stream.py"}),
        ("MemoryFallback", {"inference/frame_stream.py"}),
        ("Patched", {"inference/frame_stream.py"}),
        ("LeanWithin", {"inference/frame_stream.py"}),
        ("OpenVINONetwork", {"inference/upscaler.py"}),
        # Calibration and training run whole clips through the network, not streams.
        (
            "RoutedTrunks",
            {
                "inference/frame_stream.py",
                "evaluation/calibrate.py",
                "training/skip.py",
                "training/router.py",
                "training/lean.py",
                "training/paper_pass.py",
            },
        ),
    ],
)
def test_nothing_but_the_upscaler_builds_a_routed_stream(name: str, homes: set[str]):
    assert callers(name) == homes


def test_upscale_evaluate_and_both_python_functions_go_through_the_upscaler():
    ways = {"upscale/job.py", "upscale/frames.py", "upscale/estimate.py", "evaluation/settings.py", "web/preview.py"}
    assert ways <= callers("Upscaler")
    streams = {"upscale/pipeline.py", "upscale/frames.py", "upscale/measure.py", "evaluation/clip_run.py"}
    assert streams <= callers("stream")
