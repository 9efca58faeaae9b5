"""Send an exported model to the Hugging Face hub."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from harness.storage import (
    InputError,
    hide_passwords,
    hub_answers,
    read_json,
)

EMPTY = {".gitattributes"}
"""Files of a new repository."""


def check_repository(repository: str) -> None:
    """Raise an `InputError` unless a name is the hub's ``owner/name``."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
        problem = None if repository.count("/") == 1 else "no owner"
    except HFValidationError as error:
        problem = " ".join(str(error).split())[:150]
    if problem is not None:
        raise InputError(f"--push: found {repository!r}, expected USER/NAME as the hub allows it ({problem})")


def check_push(repository: str) -> None:
    """Raise an `InputError` if a push cannot work, by its name, the token or the network."""
    from huggingface_hub import constants, get_token

    check_repository(repository)
    if get_token() is None:
        raise InputError(
            "--push: found no token for the Hugging Face hub, expected one that may write, in HF_TOKEN "
            "or from `hf auth login`"
        )
    if not hub_answers():
        held = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
        raise InputError(
            f"--push: the hub at {hide_passwords(constants.ENDPOINT)} does not answer{held}; expected a "
            "network"
        )


def push_model(folder: Path, repository: str, private: bool = False) -> str:
    """Upload a folder of `write_model` in one commit.

    Parameters
    ----------
    folder : Path
    repository : str
        ``owner/name``; created if there is none.
    private : bool
        Whether a new repository is private. One that exists stays as it is.

    Returns
    -------
    str
        Address of the repository.

    Raises
    ------
    InputError
        If the repository holds anything but an earlier export, or the hub refuses the token, the name, the
        permission or the card.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    about = read_json(folder / "palimpsest.json")
    api = HfApi(endpoint=constants.ENDPOINT, library_name="palimpsest", library_version=version("palimpsest"))
    try:
        place = api.create_repo(repository, private=private or None, exist_ok=True)
        there = set(api.list_repo_files(repository)) - EMPTY
        if there and "palimpsest.json" not in there:
            raise InputError(
                f"--push: found {sorted(there)[0]} in {repository}, which no export wrote; expected a new "
                "repository, or one with an earlier export"
            )
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[*about["files"], "palimpsest.json"],
            commit_message=f"{about['run']} at step {about['step']}",
        )
    except HfHubHTTPError as error:
        raise InputError(f"--push: {_explain(error, repository)}") from error
    # a connection that is lost raises the base of the hub's errors, in the library that makes the requests
    except (*HfHubHTTPError.__bases__, OSError, ValueError) as error:  # type: ignore[misc]
        if isinstance(error, InputError):
            raise
        said = hide_passwords(" ".join(f"{type(error).__name__}: {error}".split()))[:200]
        raise InputError(f"--push: {repository}: the upload failed ({said})") from error
    return str(place)


def _explain(error: Exception, repository: str) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = hide_passwords(" ".join(str(error).split()))[:200]
    if status == 401:
        return f"the hub refuses the token ({said}); expected one that may write, from its settings page"
    if status == 403:
        return f"the token may not write to {repository} ({said}); expected a repository of your own"
    if status == 404:
        return f"the hub has no {repository} that this token may see ({said}); expected your own USER/NAME"
    return f"{repository}: the hub answers {said!r}"
