"""Registry: the MODEL of a command line -> a local folder and the name it is served under.

It knows local folders, the hub and the starter model; it reads no weights and imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from anydim.config import ModelSettings
from anydim.errors import ModelError
from anydim.models.card import ModelCard, read_card
from anydim.models.starter import STARTER_NAME, ensure_starter, starter_is_available

STARTER_HUB_ID: Final = "intfloat/multilingual-e5-small"
_FILES: Final = ("*.json", "*.safetensors", "*/config.json", "*.txt", "*.model")


def cache_folder(settings: ModelSettings) -> Path:
    """Where converted models are kept: ``--cache``, else ``anydim`` below XDG_CACHE_HOME or ~/.cache."""
    if settings.cache:
        return Path(settings.cache).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anydim"


def find_model(settings: ModelSettings, progress: Callable[[str, int, int], None]) -> ModelCard:
    """The card of the model that the settings name, fetched or converted where necessary.

    Args:
        settings: which model.
        progress: called with (stage, done, total) during a conversion. Downloads draw the hub's own bars.

    Raises:
        ModelError: the model is not there, cannot be fetched, or is not supported.
    """
    if settings.model is None:
        if starter_is_available():
            return read_card(ensure_starter(cache_folder(settings), progress), STARTER_NAME)
        return read_card(_download(STARTER_HUB_ID, settings.revision), STARTER_HUB_ID)
    folder = Path(settings.model).expanduser()
    if folder.is_dir():
        return read_card(folder, task=settings.task)
    if folder.is_absolute() or settings.model.startswith((".", "~")):
        raise ModelError(f"{settings.model} is not a folder")
    return read_card(_download(settings.model, settings.revision), settings.model, settings.task)


def _download(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(_FILES)))
    except HFValidationError:
        raise ModelError(
            f"{model!r} is neither a local folder nor a hub id (such as Qwen/Qwen3-Embedding-4B)"
        ) from None
    except RepositoryNotFoundError as error:
        raise ModelError(f"the hub has no model {model} that this token may read") from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{model} is not in the local cache and the hub cannot be reached; give a local folder, or start "
            "without MODEL for the starter model"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"{model} could not be downloaded: {error}") from error
