"""`--push-to-hub`: an exported folder as a private repository on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from homing.errors import DataError


def push(folder: Path, name: str) -> str:
    """Upload a folder; the repository is made, private, where it does not exist.

    Args:
        folder: From `homing export`.
        name: Of the repository, `user/name`.

    Returns:
        Its address.

    Raises:
        DataError: The hub refused, or cannot be reached; the folder stays as it is.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(library_name="homing")
        address = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=address.repo_id, commit_message="Model exported by homing")
    except Exception as error:  # its own, and those of the HTTP library that it is built on, which changes
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{name}: was not uploaded: {reason}. The folder {folder} is complete: log in (`hf auth login`), then"
            f" `hf upload {name} {folder}`"
        ) from error
    return str(address)
