"""The Hugging Face hub: one short question first, so that a missing network costs a second and not minutes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lazybench.errors import UserError

TIMEOUT_S = 10
SMALL_FILES = ("*.json", "*.txt", "*.jinja", "*.model", "*.tiktoken", "*.bpe")  # all but the weights
OTHERWISE = "or give a local copy with model.path=FOLDER_OR_GGUF"


@dataclass(frozen=True)
class Repository:
    """A model on the hub. A folder that it gives is named by the commit it holds."""

    hub_id: str
    revision: str | None
    online: bool  # False: what an earlier run downloaded
    weight_files: str  # glob of the weights, safetensors before anything else

    @staticmethod
    def find(hub_id: str, revision: str | None) -> Repository:
        """Ask the hub for a model; without a network, ask the hub's cache.

        Raises:
            UserError: no such repository or revision, gated, or neither the hub nor a cached copy in reach.
        """
        try:
            found = HfApi().model_info(hub_id, revision=revision, timeout=TIMEOUT_S)
        except HFValidationError as error:
            raise UserError(f"model.hub_id={hub_id!r} is not of the form OWNER/NAME, {OTHERWISE}") from error
        except Exception as error:
            if not unreachable(error):
                raise refusal(hub_id, revision, error) from error
            try:
                folder = snapshot_download(
                    hub_id, revision=revision, allow_patterns=[*SMALL_FILES], local_files_only=True
                )
            except LocalEntryNotFoundError:
                raise refusal(hub_id, revision, error) from error
            return Repository(hub_id, revision, online=False, weight_files=_weights(os.listdir(folder)))
        names = [sibling.rfilename for sibling in found.siblings or []]
        return Repository(hub_id, revision, online=True, weight_files=_weights(names))

    def small_files(self) -> Path:
        """The folder with configuration and tokenizer: enough to judge whether the weights fit."""
        return self._download([*SMALL_FILES])

    def all_files(self) -> Path:
        return self._download([*SMALL_FILES, self.weight_files])

    def _download(self, patterns: list[str]) -> Path:
        try:
            return Path(
                snapshot_download(
                    self.hub_id,
                    revision=self.revision,  # by name: so a later start without a network finds it
                    allow_patterns=patterns,
                    ignore_patterns=["original/*", "metal/*", "onnx/*"],
                    local_files_only=not self.online,
                    etag_timeout=TIMEOUT_S,
                )
            )
        except Exception as error:
            raise refusal(self.hub_id, self.revision, error) from error


def refusal(hub_id: str, revision: str | None, error: Exception) -> UserError:
    """The one line for what the hub said."""
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
        return UserError(
            f"can't reach the hub for {hub_id}, and no whole copy is in its cache; go online (unset HF_HUB_OFFLINE), "
            f"{OTHERWISE}, or measure speed alone with model.weights=random"
        )
    return UserError(f"the hub refused {hub_id}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")


def unreachable(error: Exception) -> bool:
    """No answer at all, or a hub that says it is ill; the client library's exceptions differ by version."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return status >= 500 or bool(
        kinds & {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectionError", "TransportError", "Timeout"}
    )


def _weights(names: list[str]) -> str:
    return "*.safetensors" if any(name.endswith(".safetensors") for name in names) else "*.bin"
