"""Which films there are, and where each goes: on disks, in shared folders and in object stores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from skipvsr.cluster.film_plan import FilmTask, film_task
from skipvsr.cluster.store import Store, as_text, is_url, name_of
from skipvsr.errors import ConfigError, InputError
from skipvsr.upscale.batch import is_batch, plan
from skipvsr.video.containers import CONTAINERS
from skipvsr.video.files import is_video

_OTHERWISE = ".mkv"
# In the place of a folder that is no path.
_NOWHERE = Path("/.skipvsr-nowhere")


def films(sources: Sequence[str | Path], destination: str | Path) -> list[FilmTask]:
    """What there is to do.

    Args:
        sources: videos, folders of images, and folders with those anywhere below them; paths, or URLs of videos, which end in
            "/" where they are folders.
        destination: for one video a video; otherwise a folder, in which a single folder's tree is kept.

    Raises:
        InputError: an input does not exist, or nothing to upscale is found.
        ConfigError: two inputs would have the same output.
    """
    urls = [source for source in sources if is_url(source)]
    if urls and len(urls) < len(sources):
        raise ConfigError(
            "some inputs are URLs and some are paths; give them in two commands, or paths as file:// URLs"
        )
    if not urls:
        paths = [Path(source) for source in sources]
        if not is_batch(paths):
            return [film_task(paths[0], destination)]
        if is_url(destination):
            folder = as_text(destination).rstrip("/")
            return [
                FilmTask(as_text(task.source), f"{folder}/{task.destination.relative_to(_NOWHERE).as_posix()}")
                for task in plan(paths, _NOWHERE)
            ]
        return [film_task(task.source, task.destination) for task in plan(paths, Path(destination))]
    if len(urls) == 1 and not str(urls[0]).endswith("/"):
        return [film_task(urls[0], destination)]
    return _of_urls([str(url) for url in urls], as_text(destination).rstrip("/"))


def _of_urls(urls: list[str], folder: str) -> list[FilmTask]:
    tasks: list[FilmTask] = []
    for url in urls:
        if not url.endswith("/"):
            tasks.append(FilmTask(url, f"{folder}/{_output_name(url)}"))
            continue
        inside = folder if len(urls) == 1 else f"{folder}/{name_of(url)}"
        found = [name for name in Store(url).tree() if _is_video(name)]
        if not found:
            raise InputError(f"{url} holds no videos")
        tasks += [
            FilmTask(f"{url.rstrip('/')}/{name}", f"{inside}/{PurePosixPath(name).with_name(_output_name(name))}")
            for name in found
        ]
    seen: dict[str, str] = {}
    for task in tasks:
        other = seen.setdefault(task.destination, task.source)
        if other != task.source:
            raise ConfigError(f"{other} and {task.source} would both become {task.destination}; rename one of them")
    return tasks


def _is_video(name: str) -> bool:
    path = PurePosixPath(name)
    return is_video(Path(name)) and not any(part.startswith(".") for part in path.parts)


def _output_name(place: str) -> str:
    path = PurePosixPath(name_of(place))
    return path.name if path.suffix.lower() in CONTAINERS else f"{path.stem}{_OTHERWISE}"
