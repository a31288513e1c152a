"""The Hugging Face Hub: model folders up and down, and the card that it shows.

`huggingface_hub.ModelHubMixin` is not used: it makes a network from the arguments of its constructor alone, and writes into the
destination file by file; our folder also holds provenance and tables, and appears whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skipvsr.checkpoints.native import CARD, CONFIG, WEIGHTS, read_folder
from skipvsr.errors import ConfigError, ModelError

LIBRARY = "skipvsr"
# "owner/name", and after an @ a branch, tag or commit.
HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_FILES = [CONFIG, WEIGHTS, CARD]


def download(
    repository: str,
    revision: str | None = None,
    *,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """A model folder of the Hub in the local cache; what is there already is not downloaded again.

    Without a network, and with `local_files_only` or the environment's HF_HUB_OFFLINE=1, it is the one in the cache.

    Args:
        repository: "owner/name".
        revision: a branch, a tag, or a commit, with which the model never changes; None: the newest.
        cache_dir: the cache; None: that of huggingface_hub (HF_HOME).
        local_files_only: ask the cache alone.
        token: of the Hub; None: that of the environment or of `hf auth login`.

    Raises:
        ModelError: the Hub has no such model, or cannot be reached and the cache has it not.
    """
    from huggingface_hub import snapshot_download

    name = repository if revision is None else f"{repository}@{revision}"
    with _translated(f"there is no file or folder {name!r}, and no such model could be downloaded from the Hub"):
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=_FILES,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
            library_name=LIBRARY,
        )
    return Path(folder)


def push(
    folder: str | Path,
    repository: str,
    *,
    message: str = "",
    private: bool | None = None,
    tag: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Upload a model folder to the Hub, as one commit; the repository is made if need be.

    Args:
        folder: the model folder, which is read whole first: a damaged one is not uploaded.
        repository: "owner/name".
        message: of the commit.
        private: whether a repository that is made is private; None: as its owner has set.
        tag: name this commit, as in "v1".
        token: of the Hub, with the right to write; None: that of the environment or of `hf auth login`.

    Returns:
        "owner/name@commit", with which `load_model` gives exactly this model for ever.

    Raises:
        CheckpointError: the folder is not a whole model folder.
        ConfigError: the repository is not "owner/name", or the card says that it belongs to another library.
        ModelError: the Hub refused, or cannot be reached.
    """
    from huggingface_hub import HfApi

    folder = Path(folder)
    match = HUB_ID.fullmatch(repository)
    if match is None or match[2] is not None:
        raise ConfigError(f"the repository is {repository!r}; it must be OWNER/NAME")
    read_folder(folder)
    check_card(folder / CARD)
    api = HfApi(token=token, library_name=LIBRARY)
    with _translated(f"{folder} could not be uploaded to {repository}"):
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=_FILES,
            commit_message=message or f"Upload {folder.resolve().name} with skipvsr",
        )
        if tag is not None:
            api.create_tag(repository, tag=tag, revision=commit.oid)
    return f"{repository}@{commit.oid}"


def check_card(path: Path) -> None:
    """Raise ConfigError unless a model card begins with the front matter by which the Hub files it under this library."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        card = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=False)
        library = card.data.to_dict().get("library_name")
    except (OSError, ValueError, TypeError, AttributeError, YAMLError) as error:
        raise ConfigError(f"{path} is no model card ({' '.join(str(error).split())[:120]})") from error
    if library != LIBRARY:
        raise ConfigError(
            f"{path} has the library_name {library!r}; begin it with the lines '---', 'library_name: {LIBRARY}', '---'"
        )


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Errors of the Hub and of the network as ours."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # What the HTTP client raises, whichever huggingface_hub uses.
    transport: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        yield
    except RevisionNotFoundError as error:
        raise ModelError(f"{what}: the repository has no such revision; check it") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{what}: it does not exist there, or only for its members; check the name, or log in with 'hf auth login'"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(f"{what}: the Hub was not reached, and the local cache does not have it whole") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = "; log in with 'hf auth login', or set HF_TOKEN" if status in (401, 403) else ""
        raise ModelError(f"{what}: the Hub answered with status {status}{hint}") from error
    except (HFValidationError, OSError, transport) as error:
        raise ModelError(f"{what} ({type(error).__name__}: {' '.join(str(error).split())[:120]})") from error
