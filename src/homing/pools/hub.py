"""Datasets of the Hugging Face hub by name: loaded by `datasets` into its own cache, and read there as a table.

No code of a dataset is run: `datasets` has none to run since its version 4.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from homing.errors import DataError
from homing.pools.class_names import quoted
from homing.pools.table_parts import ArrowPart, open_parts
from homing.pools.tables import Table, table_of

if TYPE_CHECKING:
    from datasets import DatasetBuilder

_OFFLINE = (
    "on a machine with a network run `hf download {name} --repo-type dataset` and copy its cache ($HF_HOME) here, or"
    " save it there with save_to_disk and give that folder; unset HF_HUB_OFFLINE where there is a network"
)


def open_hub(name: str, split: str | None, config: str | None, revision: str | None) -> Table:
    """A split of a dataset of the hub.

    Args:
        name: user/name.
        split: Of the dataset; may be left out where there is a single one.
        config: Where it has several.
        revision: Branch, tag or commit; None: the newest, or offline the one that is there.

    Returns:
        The table, whose version is the commit.

    Raises:
        DataError: It is not there, or cannot be reached or read; or a split or configuration has to be named.
    """
    builder, commit = _builder(name, config, revision)
    shown = f"hub dataset {name}"
    try:
        splits = [str(one) for one in (builder.info.splits or builder.config.data_files or ())]
        if split is None and len(splits) == 1:
            (split,) = splits
        if splits and split not in splits:
            found = "" if split is None else f", found {split!r}"
            raise DataError(f"{shown}: holds the splits {', '.join(splits)}; name one with split{found}")
        builder.download_and_prepare()
        data = builder.as_dataset(split)
        files = [Path(one["filename"]) for one in data.cache_files]
    except DataError:
        raise
    except Exception as error:  # of many libraries
        raise DataError(f"{shown}: cannot be loaded: {_sentence(error)}") from error
    if not files:
        raise DataError(f"{shown}: no images; the split {split} is empty")
    parts = open_parts(files, ArrowPart, Path(shown), "a dataset")
    version = f"commit {commit}" if commit else "a cached version without a commit"
    kind = f"{shown}, split {split}, configuration {builder.config.name}, {version}"
    table = table_of(shown, kind, parts, data.features.to_dict(), ())
    return Table(shown, kind, table.parts, table.features, (), commit, _files_of(name))


def _builder(name: str, config: str | None, revision: str | None) -> tuple[DatasetBuilder, str]:
    """What loads a dataset, and its commit: of the hub, or offline of a snapshot in the hub's cache, or prepared."""
    import datasets
    from huggingface_hub import constants

    shown = f"hub dataset {name}"
    commit = None if constants.HF_HUB_OFFLINE else _newest(name, revision)
    folder = None if commit else _snapshot(name, revision)
    try:
        if folder is not None:
            return datasets.load_dataset_builder(str(folder), name=config), folder.name
        if commit is not None:
            return datasets.load_dataset_builder(name, name=config, revision=commit), commit
        builder = _prepared(name, config)
    except Exception as error:  # of many libraries
        if commit or folder:  # a configuration has to be named, say
            raise DataError(f"{shown}: cannot be loaded: {_sentence(error)}") from error
        of_revision = f" of the revision {revision!r}" if revision else ""
        raise DataError(
            f"{name}: no such file or folder, and the hub's dataset{of_revision} is neither reachable nor in the cache"
            f" ({constants.HF_HUB_CACHE}); {_OFFLINE.format(name=name)}"
        ) from error
    found = str(builder.hash or "")
    if revision not in (None, found):
        raise DataError(
            f"{name}: no such file or folder, and of the hub's dataset only the commit {found} is in the cache, not the"
            f" revision {revision!r}; {_OFFLINE.format(name=name)}"
        )
    return builder, found


def _prepared(name: str, config: str | None) -> DatasetBuilder:
    """What `datasets` loaded once before; `load_dataset_builder` would ask the hub first, for a minute."""
    from datasets.packaged_modules.cache.cache import Cache

    return Cache(dataset_name=name.rpartition("/")[2], repo_id=name, config_name=config, version="auto", hash="auto")


def _newest(name: str, revision: str | None) -> str | None:
    """The commit that a revision is on the hub; None where the hub cannot be reached.

    Raises:
        DataError: The hub has no such dataset, or no such revision of it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return str(HfApi().dataset_info(name, revision=revision).sha)
    except RevisionNotFoundError as error:
        raise DataError(
            f"hub dataset {name}: has no revision {revision!r}; name a branch, a tag or a commit of it"
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(
            f"{name}: no such file or folder, and no dataset of that name on the hub that this user may read; correct"
            " the path, or log in with `hf auth login`"
        ) from error
    except HfHubHTTPError as error:
        raise DataError(f"hub dataset {name}: the hub refuses: {_sentence(error)}") from error
    except Exception:  # no network, of many kinds: what is here will do
        return None


def _snapshot(name: str, revision: str | None) -> Path | None:
    """The folder of a commit in the hub's cache, as `hf download` leaves it; None where it is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _files_of(name: str) -> Path:
    """The folder of the hub's cache in which a dataset's own files lie."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="dataset")


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or quoted([type(error).__name__])
