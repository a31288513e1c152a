"""`skipvsr serve`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from skipvsr.cli.show import add_json, print_event
from skipvsr.errors import ConfigError

_GIB = 1 << 30


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "serve",
        help="open a page on which videos are tried, upscaled and looked at",
        description="Serve a page to this machine's browser: drop a video, look at a frame of it upscaled, turn the dial, "
        "start the job, watch it, take the result. Jobs go on when the page is closed, and after this program was stopped.",
    )
    parser.add_argument(
        "--root",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder from which videos may be picked; may be repeated (none: only uploads)",
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="for uploads, results and the queue (the user's own data)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ... (auto: a GPU if there is one)")

    network = parser.add_argument_group("who can reach it (this machine only)")
    network.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (%(default)s)")
    network.add_argument("--port", type=int, default=8760, metavar="N", help="0: any that is free (%(default)s)")
    network.add_argument(
        "--token", help="secret of the link (made and kept, where other machines can reach the page; else none)"
    )
    network.add_argument(
        "--host-name",
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which the page is opened, besides this machine's own; may be repeated",
    )

    limits = parser.add_argument_group("how much is taken")
    limits.add_argument("--max-upload", type=float, default=64, metavar="GIB", help="of one file (%(default)s)")
    limits.add_argument("--max-disk", type=float, default=512, metavar="GIB", help="of the work folder (%(default)s)")
    limits.add_argument("--max-jobs", type=int, default=50, metavar="N", help="unfinished ones a person (%(default)s)")
    add_json(parser)
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Serve until Ctrl-C."""
    from skipvsr.web.settings import Limits, ServeOptions, default_work_folder

    try:
        from skipvsr.web.server import serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"the page needs {error.name}; install it: pip install 'skipvsr[web]'") from error
    options = ServeOptions(
        work=args.work or default_work_folder(),
        host=args.host,
        port=args.port,
        roots=tuple(args.root),
        token=args.token,
        host_names=tuple(args.host_name),
        limits=Limits(
            upload_bytes=int(args.max_upload * _GIB), disk_bytes=int(args.max_disk * _GIB), jobs=args.max_jobs
        ),
        device=args.device,
    )

    def ready(address: str) -> None:
        if args.json:
            print_event("ready", address=address, work=str(options.work))
        else:
            print(
                f"Open {address}", f"Uploads and results are in {options.work}. Ctrl-C stops it.", sep="\n", flush=True
            )

    serve(options, ready)
    if args.json:
        print_event("report", work=str(options.work))
