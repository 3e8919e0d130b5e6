"""The Hugging Face hub: one short question first, so that a missing network costs a second and not minutes."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from lazybench.errors import OFFLINE, UserError, unreachable

TIMEOUT_S = 10
SMALL_FILES = ("*.json", "*.txt", "*.jinja", "*.model", "*.tiktoken", "*.bpe")  # all but the weights
OTHERWISE = "or give a local copy with model.path=FOLDER_OR_GGUF"


@cache
def files_of(hub_id: str, revision: str | None, kind: str = "model") -> tuple[str, ...] | None:
    """The names of a repository's files; None: no hub in reach, so that an earlier download must do."""
    try:
        found: Any = HfApi().repo_info(hub_id, revision=revision, repo_type=kind, timeout=TIMEOUT_S)
    except Exception as error:
        if unreachable(error):
            return None
        raise
    return tuple(sibling.rfilename for sibling in found.siblings or [])


def model_folder(hub_id: str, revision: str | None, with_weights: bool) -> Path:
    """A model of the hub, downloaded or kept of an earlier run, in a folder that is named by its commit.

    Args:
        with_weights: safetensors before anything else; without, enough to judge whether they fit.

    Raises:
        UserError: no such repository or revision, gated, or neither the hub nor a cached copy in reach.
    """
    try:
        names = files_of(hub_id, revision)

        def download(*patterns: str) -> Path:
            return Path(
                snapshot_download(
                    hub_id,
                    revision=revision,  # by name: so a later start without a network finds it
                    allow_patterns=[*SMALL_FILES, *patterns],
                    ignore_patterns=["original/*", "metal/*", "onnx/*"],
                    local_files_only=names is None,
                    etag_timeout=TIMEOUT_S,
                )
            )

        folder = download()
        if not with_weights:
            return folder
        present = os.listdir(folder) if names is None else names
        return download("*.safetensors" if any(name.endswith(".safetensors") for name in present) else "*.bin")
    except Exception as error:
        raise refusal(hub_id, revision, error) from error


def refusal(hub_id: str, revision: str | None, error: Exception) -> UserError:
    """The one line for what the hub said."""
    if isinstance(error, HFValidationError):
        return UserError(f"model.hub_id={hub_id!r} is not of the form OWNER/NAME, {OTHERWISE}")
    if isinstance(error, GatedRepoError):
        return UserError(
            f"{hub_id} is gated: accept its licence at https://huggingface.co/{hub_id}, then set the variable HF_TOKEN "
            f"to your access token, {OTHERWISE}"
        )
    if isinstance(error, RepositoryNotFoundError):
        return UserError(
            f"the hub has no model {hub_id} that you may read; check model.hub_id (private: set HF_TOKEN), {OTHERWISE}"
        )
    if isinstance(error, RevisionNotFoundError):
        return UserError(f"{hub_id} has no revision {revision!r}; check model.revision")
    if "No space left" in str(error):
        return UserError(f"no space left for {hub_id}; free some, or set HF_HOME to a folder on another disk")
    if unreachable(error):
        return UserError(f"{hub_id}: {OFFLINE}, {OTHERWISE}, or measure speed alone with model.weights=random")
    return UserError(f"the hub refused {hub_id}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
