"""The readers and damaged files: frames or one of our errors, whatever is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.fuzz_readers import make_case, make_seeds, read_case, run_batch

DATA = Path(__file__).parent / "data" / "fuzz"


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "seeds"
    make_seeds(folder)
    return folder


def test_the_files_that_are_damaged_are_read_whole_before(seeds: Path):
    paths = sorted(seeds.iterdir())
    assert len(paths) == 14
    assert {path.name: read_case(path) for path in paths} == {path.name: "frames" for path in paths}


def test_a_case_is_the_same_every_time_and_damaged(seeds: Path, tmp_path: Path):
    paths = sorted(seeds.iterdir())
    first = [make_case(number, paths, tmp_path).read_bytes() for number in range(30)]
    assert [make_case(number, paths, tmp_path).read_bytes() for number in range(30)] == first
    assert not {path.read_bytes() for path in paths} & set(first)


def test_damaged_files_give_frames_or_one_of_our_errors(seeds: Path):
    """In a child process, within limits of memory and time."""
    result = run_batch(range(1_000_000, 1_000_150), seeds)
    assert result.faults == {}
    assert sum(result.outcomes.values()) == 150
    assert set(result.outcomes) <= {"frames", "InputError", "DecodeError"}
    # Damage is not always fatal, and not always harmless.
    assert min(result.outcomes["frames"], result.outcomes["InputError"], result.outcomes["DecodeError"]) > 5


# A stream that turns up midway, over which PyAV stumbles at the end of the file.
FOUND = {"late_stream.flv": "InputError"}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once_stays_mended(name: str):
    assert read_case(DATA / name) == FOUND[name]


@pytest.mark.parametrize("name", ["crash", "hang", "error"])
def test_what_must_not_be_is_found(seeds: Path, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A fuzzer that finds nothing has to be able to."""
    package = tmp_path / "sitecustomize.py"
    trap = {
        "crash": "os.abort()",
        "hang": "signal.raise_signal(signal.SIGALRM)",
        "error": "(_ for _ in ()).throw(KeyError('no'))",
    }[name]
    package.write_text(
        "import os, signal\n"
        "from skipvsr.video import images, read\n"
        f"read.VideoReader.__init__ = lambda *args, **kwargs: {trap}\n"
        f"images.read_image = lambda *args, **kwargs: {trap}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    result = run_batch(range(3), seeds, tmp_path / "kept")
    words = {"crash": "signal 6", "hang": "took too long", "error": "KeyError: 'no'"}[name]
    assert [words in reason for _, reason in sorted(result.faults.items())] == [True] * 3
    assert sorted(int(path.stem) for path in (tmp_path / "kept").iterdir()) == [0, 1, 2]
