"""The command line's face: its help, what it costs to show it, and what it says of wrong options."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

from skipvsr.cli import choices
from skipvsr.cli.main import main, make_parser
from skipvsr.cli.upscale_options import job_options
from skipvsr.cluster.chunks import DEFAULT_WARMUP
from skipvsr.cluster.on_ray import WORKER_CPUS
from skipvsr.data.check import FAMILIES
from skipvsr.data.datasets import KINDS, LRKind
from skipvsr.data.degradations import DEGRADATIONS
from skipvsr.evaluation.measures import LOOKAHEAD, WINDOW
from skipvsr.inference.options import (
    PRESETS,
    ComputeOptions,
    ComputeShorthands,
    Precision,
    StreamOptions,
    StreamShorthands,
    Tiling,
)
from skipvsr.inference.patched import PATCH_BATCH_SIZE
from skipvsr.inference.windows import DEFAULT_LOOKAHEAD
from skipvsr.models.config import Scale
from skipvsr.report import presets
from skipvsr.report.reproduce import NAMES
from skipvsr.upscale.options import JobOptions, OutputOptions, VideoShorthands
from skipvsr.upscale.size import OutputSize
from skipvsr.video.sound import Audio
from skipvsr.video.write import EncodeOptions

# Every command, and a word of what its help must explain.
COMMANDS = {
    "upscale": "Sound",
    "serve": "browser",
    "compare": "beside",
    "evaluate": "ground truth",
    "train": "stages",
    "calibrate": "threshold",
    "reproduce": "tables and figures",
    "data check": "do not decode",
    "convert": "BasicSR",
    "export": "recurrence",
    "models": "package",
    "push": "one commit",
    "benchmark": "this machine",
}


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The exit status of a command line, and what it printed."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch):
    """Help of one line for each option."""
    monkeypatch.setenv("COLUMNS", "400")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    listed = re.findall(r"^    (\w+) +\S.*$", out, re.M)
    assert listed == [name.partition(" ")[0] for name in COMMANDS]
    assert out.count("\n    ") == len(listed)  # each with its description in the same line


@pytest.mark.parametrize("name", COMMANDS)
def test_help_describes_every_option(name: str, capsys: pytest.CaptureFixture[str]):
    code, out, _ = run(capsys, *name.split(), "--help")
    assert code == 0
    assert f"usage: skipvsr {name} " in out
    assert COMMANDS[name] in out
    usage, _, body = out.partition("\n\n")
    described = set()
    for line in re.sub(r"\n {20,}", "   ", body).splitlines():
        if line.startswith("  ") and not line.startswith("   "):
            # Two spaces or more stand between an option, or a positional argument, and its description.
            words, _, description = line.strip().partition("  ")
            assert description.strip(), f"{name}: {words} is not described"
            described |= {word for word in re.split(r"[ ,]+", words) if word.startswith("--")}
    assert described - {"--help"} == set(re.findall(r"--[\w-]+", usage))
    assert {"--json", "--debug"} <= described


@pytest.mark.parametrize("words", ["", *COMMANDS])
def test_help_does_not_wait_for_torch(words: str):
    script = (
        "import sys\nfrom skipvsr.cli.main import main\n"
        "try:\n    main([*sys.argv[1:], '--help'])\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "heavy = {'torch', 'av', 'starlette', 'uvicorn', 'numpy', 'matplotlib', 'skimage', 'huggingface_hub'}\n"
        "print(*sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words.split()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert f"usage: skipvsr {words}".strip() in done.stdout


def test_choices_are_those_of_the_package():
    assert choices.DATASETS == KINDS
    assert tuple(FAMILIES) == choices.FAMILIES
    assert choices.DEGRADATIONS == DEGRADATIONS
    assert get_args(LRKind) == choices.LR_KINDS
    assert get_args(Scale) == choices.SCALES
    assert get_args(Tiling) == choices.TILINGS
    assert get_args(Precision) == choices.PRECISIONS
    assert tuple(PRESETS) == choices.PRESETS
    assert get_args(Audio) == choices.AUDIO
    assert tuple(presets.PRESETS) == choices.SIZES_OF_REPRODUCTION
    assert choices.REPRODUCED == NAMES
    assert choices.LOOKAHEAD == DEFAULT_LOOKAHEAD
    assert choices.PATCH_BATCH_SIZE == PATCH_BATCH_SIZE
    assert (choices.WARMUP, choices.WORKER_CPUS) == (DEFAULT_WARMUP, WORKER_CPUS)
    assert (choices.EVALUATION_WINDOW, choices.EVALUATION_LOOKAHEAD) == (WINDOW, LOOKAHEAD)


# A wrong command line: whose usage is shown, and the error after it.
MISTAKES = {
    "upscale in.mp4 out.mp4 --sise 2": ("upscale", "there is no option --sise; did you mean .*--size"),
    "upscale in.mp4 out.mp4 --budgte=0.5": ("upscale", r"no option --budgte; did you mean --budget\?"),
    "upscale in.mp4 out.mp4 --xyzzy": ("upscale", "no option --xyzzy; see 'skipvsr upscale --help'"),
    "upscale in.mp4 out.mp4 --tiling hexagon": ("upscale", "--tiling: invalid choice: 'hexagon' .*'?frame'?, '?patch"),
    "upscale in.mp4 out.mp4 --preset turbo": ("upscale", "--preset: .*'turbo' .*'?fast'?, '?balanced'?, '?best"),
    "upscale in.mp4 out.mp4 --crf high": ("upscale", "--crf: invalid int value: 'high'"),
    "upscale in.mp4": ("upscale", "the following arguments are required: OUT"),
    "evaluate clips --clips 3": ("evaluate", "there is no option --clips"),
    "evaluate clips --degradation blur": ("evaluate", "'blur' .*'?bi'?, '?bd'?, '?bd-duf'?, '?video"),
    "evaluate clips --dataset red4": ("evaluate", "'red4' .*reds4"),
    "calibrate model clips --clips 3": ("calibrate", r"no option --clips; did you mean .*--max-clips"),
    "reproduce table9 --data x": ("reproduce", "'table9' .*table6"),
    "reproduce fig1 --data x --preset turbo": ("reproduce", "'turbo' .*'?paper'?, '?mini'?, '?smoke"),
    "data check folder --quik": ("data check", r"did you mean --quick\?"),
    "data check folder other": ("data check", "unexpected argument: other"),
    "compare a b c --crop 1,2": ("compare", "'1,2' is not X,Y,WIDTH,HEIGHT"),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_wrong_options_show_the_usage_of_their_command(words: str, capsys: pytest.CaptureFixture[str]):
    command, error = MISTAKES[words]
    code, out, err = run(capsys, *words.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"usage: skipvsr {command} [-h]")
    assert re.search(f"^skipvsr {command}: error: .*{error}", err, re.M), err


def test_a_wrong_command_names_those_there_are(capsys: pytest.CaptureFixture[str]):
    code, _, err = run(capsys, "upscal")
    assert code == 2
    assert all(name.partition(" ")[0] in err for name in COMMANDS)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]):
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    version = re.findall(r'^version = "(.+)"', project, re.M)
    assert run(capsys, "--version") == (0, f"skipvsr {version[0]}\n", "")


def test_every_option_of_a_job_comes_from_an_argument_of_upscale():
    """A field that is added to the options without an argument is an error here, and not only in somebody's terminal."""
    words = (
        "upscale in.mkv out.mkv --budget 0.5 --tile-size 12 --tiling patch --patch-batch-size 3 --device cpu --precision bf16 "
        "--window 5 --lookahead 2 --no-scene-detection --no-repeat-detection --overwrite --no-resume "
        "--segment-length 7 --height 100 --codec ffv1 "
        "--encoder-preset slow --start 1 --end 2 --no-deinterlace"
    )
    assert job_options(make_parser().parse_args(words.split())) == JobOptions(
        compute=ComputeOptions(
            budget=0.5, tile_size=12, tiling="patch", patch_batch_size=3, device="cpu", precision="bf16"
        ),
        stream=StreamOptions(window=5, lookahead=2, scene_detection=False, repeat_detection=False),
        output=OutputOptions(
            size=OutputSize(height=100), encoding=EncodeOptions(codec="ffv1", preset="slow"),
            overwrite=True, resume=False, segment_length=7,
        ),
        start=1.0, end=2.0, deinterlace=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shorthands", "options"),
    [(ComputeShorthands, (ComputeOptions,)), (StreamShorthands, (ComputeOptions, StreamOptions)),
     (VideoShorthands, (ComputeOptions, StreamOptions, OutputOptions))],
)  # fmt: skip
def test_shorthands_are_the_fields_of_the_options(shorthands: Any, options: tuple[type, ...]):
    assert set(shorthands.__annotations__) == {field.name for kind in options for field in fields(kind)}
