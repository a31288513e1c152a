"""Train a while on a machine that is lent for minutes, takes and gives files in small pieces only, and reaches no network.

    pack     at home: data, wheels and the run so far, in parts that one call can carry
    go       there: put the parts together, train within a time limit, cut the run into parts for the way home
    more     there: the next parts, where they did not all go at once
    join     at home: put the run together, to go on with by whatever way; the run before stays beside it

Nothing is lost on the way: files go as they are, and are compared by SHA-256. docs/training.md shows a whole round.

python scripts/train_on_gpu.py pack configs/compact/gpu.toml --run runs/compact-gpu --to runs/carry
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from file_parts import INDEX, read_parts, write_parts

MIB = 2**20
# What training needs and the other machine may lack, for its Python; versions are those of requirements.lock.
WHEELS = ("av", "pydantic", "pydantic_core", "annotated-types", "typing-inspection", "platformdirs")
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def main() -> int:
    args = parse_arguments()
    try:
        return args.command(args)
    except (OSError, ValueError) as error:
        print(f"train_on_gpu: {error}", file=sys.stderr)
        return 1


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train in pieces on a lent machine.")
    commands = parser.add_subparsers(required=True)
    pack = commands.add_parser("pack", help="at home: make the parts that go there")
    pack.add_argument("config", type=Path, help="inside the repository, which goes there by itself")
    pack.add_argument("--run", type=Path, required=True, help="folder of the run; it may not exist yet")
    pack.add_argument("--to", type=Path, required=True, help="folder for the parts; emptied first")
    pack.add_argument("--part-mib", type=float, default=50.0, help="the most that one call carries (%(default)s)")
    pack.add_argument("--wheels", nargs="*", default=WHEELS, help="packages to take along (%(default)s)")
    pack.add_argument("--python", default="3.12", help="the other machine's (%(default)s)")
    pack.set_defaults(command=pack_command)
    go = commands.add_parser("go", help="there: train, and make the parts that go home")
    go.add_argument("carried", type=Path, help="where the parts are")
    go.add_argument("--time-limit", type=float, default=8.0, metavar="MINUTES", help="for all of it (%(default)s)")
    go.add_argument(
        "--train", nargs=argparse.REMAINDER, default=[], help="more arguments for skipvsr train, up to the end"
    )
    more = commands.add_parser("more", help="there: the next parts")
    more.add_argument("carried", type=Path, help="where the parts are")
    for command, function in ((go, go_command), (more, more_command)):
        command.add_argument("--out", type=Path, required=True, help="folder whose files go home")
        command.add_argument("--files", type=int, default=8, help="that go home at once (%(default)s)")
        command.add_argument("--total-mib", type=float, default=62.0, help="that go home at once (%(default)s)")
        command.set_defaults(command=function)
    go.add_argument("--part-mib", type=float, default=15.0, help="the largest file that goes home (%(default)s)")
    join = commands.add_parser("join", help="at home: put the run together")
    join.add_argument("folders", type=Path, nargs="+", help="what came home, of one round")
    join.add_argument("--run", type=Path, required=True, help="folder of the run")
    join.set_defaults(command=join_command)
    return parser.parse_args()


def pack_command(args: argparse.Namespace) -> int:
    """Write the parts that go there, each in a folder of its own, and say what to do with them."""
    from skipvsr.training.config import read_config

    config = read_config(args.config)
    if args.config.is_absolute() or ".." in args.config.parts:
        raise ValueError(
            f"{args.config} must lie in the repository and be given from its top, as in configs/smoke.toml"
        )
    shutil.rmtree(args.to, ignore_errors=True)
    args.to.mkdir(parents=True)
    roots = [source.root for source in (*config.data.train, *config.validation.clips)]
    roots += [config.data.stills] * bool(config.data.stills)
    roots += [name for stage in config.stages for name in (getattr(stage, "init", ""), getattr(stage, "flow_init", ""))]
    places = [root for root in dict.fromkeys(roots) if root and Path(root).exists()]
    files = list(download_wheels(args.wheels, args.python, args.to / "wheels"))
    for number, place in enumerate(places):
        files += [(f"data/{number}/{name}".rstrip("/"), path) for name, path in files_in(Path(place))]
    files += [(f"run/{name}", path) for name, path in files_of_run(args.run)]
    notes = {"config": args.config.as_posix(), "run": args.run.as_posix(), "places": places}
    index = write_parts(files, args.to, int(args.part_mib * MIB), notes, in_folders=True)
    shutil.rmtree(args.to / "wheels", ignore_errors=True)
    parts = [part["name"] for part in index["parts"]]
    total = sum(part["size"] for part in index["parts"])
    print(f"{len(files)} files, {total / MIB:.1f} MiB, in {len(parts)} parts")
    print(f"carry each of these there, with a call of its own: {' '.join(f'{args.to}/{name}' for name in parts)}")
    print(f"with the last one: python3 scripts/train_on_gpu.py go {args.to} --out $OUT")
    return 0


def go_command(args: argparse.Namespace) -> int:
    """Train there. The exit status is that of training: 0 finished, 75 to be gone on with."""
    began = time.monotonic()
    work = args.carried / "work"
    if not work.exists():
        unpack(args.carried, work)
    notes = json.loads((work / "notes.json").read_text())
    run = Path(notes["run"])
    limit = max(args.time_limit * 60 - (time.monotonic() - began), 1e-3)
    command = [sys.executable, "-m", "skipvsr", "train", notes["config"], "--out", str(run), "--resume"]
    paths = [str(Path("src").resolve()), str((work / "site").resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    # One thread for each of the threads that draw data; the network runs on the GPU.
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    status = subprocess.run(
        [*command, "--time-limit", f"{limit:.3f}s", *args.train], env=environment, check=False
    ).returncode
    shutil.rmtree(args.carried / "home", ignore_errors=True)
    if run.exists():
        write_parts(list(files_of_run(run)), args.carried / "home", int(args.part_mib * MIB), {"status": status})
        more_command(args)
    return status


def more_command(args: argparse.Namespace) -> int:
    """Move the next parts to the folder whose files go home."""
    home = args.carried / "home"
    if not (home / INDEX).exists():
        raise ValueError(f"{home} has no run that could go home; run go first")
    args.out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(home / INDEX, args.out / INDEX)
    left, room = args.files - 1, args.total_mib * MIB - (home / INDEX).stat().st_size
    waiting = sorted(path for path in home.iterdir() if path.name != INDEX)
    while waiting and left > 0 and waiting[0].stat().st_size <= room:
        part = waiting.pop(0)
        left, room = left - 1, room - part.stat().st_size
        shutil.move(part, args.out / part.name)
    again = f"call: python3 scripts/train_on_gpu.py more {args.carried} --out $OUT" if waiting else "that is all"
    print(f"{len(waiting)} parts are left; {again}")
    return 0


def join_command(args: argparse.Namespace) -> int:
    """Put what came home in the place of the run. Where parts are missing, what is whole goes beside it instead."""
    new = args.run.with_name(f"{args.run.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    missing = read_parts(args.folders, new)
    if missing:
        print(f"train_on_gpu: {', '.join(missing)} did not come home; what is whole is in {new}", file=sys.stderr)
        return 1
    if args.run.exists():
        before = args.run.with_name(f"{args.run.name}.before")
        shutil.rmtree(before, ignore_errors=True)
        args.run.rename(before)
        print(f"the run as it was before is in {before}")
    new.rename(args.run)
    print(f"{args.run} is whole")
    return 0


def unpack(carried: Path, work: Path) -> None:
    """Put what was carried in its places: data where the configuration looks for it, wheels in a folder of their own."""
    started = work.with_name("work.part")
    shutil.rmtree(started, ignore_errors=True)
    folders = sorted(path for path in carried.iterdir() if (path / INDEX).exists() and path.name != "home")
    if not folders:
        raise ValueError(f"{carried} has no parts; carry the folders there that pack wrote")
    missing = read_parts(folders, started)
    if missing:
        raise ValueError(f"of what was packed, this did not come: {', '.join(missing)}; carry it too")
    notes = json.loads((folders[0] / INDEX).read_text())["notes"]
    wheels = [str(path) for path in sorted((started / "wheels").glob("*.whl"))]
    if wheels:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
        subprocess.run([*pip, "--target", str(started / "site"), *wheels], check=True)
    (started / "notes.json").write_text(json.dumps(notes))
    started.rename(work)
    for number, place in enumerate(notes["places"]):
        if not Path(place).exists():
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            Path(place).symlink_to((work / "data" / str(number)).resolve())
    if (work / "run").exists() and not Path(notes["run"]).exists():
        shutil.copytree(work / "run", notes["run"])


def files_of_run(run: Path) -> Iterator[tuple[str, Path]]:
    """What a run needs to go on, and its best models: the most precious first, if not all of it arrives."""
    stages = sorted((path for path in run.glob("*-*") if path.is_dir()), reverse=True)
    small = [run / "run.json", *(stage / name for stage in stages for name in ("finished.json", "log.jsonl"))]
    best = [path for stage in stages for path in sorted((stage / "best").glob("*"))]
    last = [stage / "last.pt" for stage in stages if not (stage / "finished.json").exists()]
    yield from ((path.relative_to(run).as_posix(), path) for path in (*small, *best, *last) if path.is_file())


def files_in(place: Path) -> Iterator[tuple[str, Path]]:
    """The files under a folder by their names in it; of a file, itself."""
    if place.is_file():
        yield "", place
        return
    for path in sorted(place.rglob("*")):
        if path.is_file():
            yield path.relative_to(place).as_posix(), path


def download_wheels(names: Iterable[str], python: str, to: Path) -> Iterator[tuple[str, Path]]:
    """Wheels of the packages for the other machine's Python, in the versions of requirements.lock."""
    names = list(names)
    if names:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        pip += ["--constraint", "requirements.lock", "--python-version", python, "--implementation", "cp"]
        pip += [word for platform in _PLATFORMS for word in ("--platform", platform)]
        subprocess.run([*pip, "--dest", str(to), *names], check=True)
    yield from ((f"wheels/{path.name}", path) for path in sorted(to.glob("*.whl")))


if __name__ == "__main__":
    sys.exit(main())
