"""The baseline's references on disk: computed once for each sample, read by every method and every run after."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import torch
import transformers

from lazybench.errors import UserError
from lazybench.measure.fidelity import Reference, record_reference
from lazybench.methods.base import Method
from lazybench.methods.request import Request

_SETTING = (bool, int, float, str, list, type(None))


@dataclass(frozen=True)
class ReferenceStore:
    """A folder with one file for each reference.

    A file's name begins with task and sample, for people, and ends with a digest of all that the reference depends
    on: the model and where it runs, the data, the prompt's ids, the limits of the generation, the versions of torch
    and transformers. So a change of any of them finds no file and records anew. Several processes may share a folder.

    Log-probabilities are kept in float32, (steps, vocabulary): 3 MB for 16 steps of a vocabulary of 49,152. Half
    precision would be half of that, but shifts a divergence of 0.15 nats by 0.03% and one of 0.0002 nats by 15%.

    Args:
        folder: made when it does not exist.
        model: tells models apart: name, revision, quantization, in any form.
        baseline: the method that generates references.
    """

    folder: Path
    model: str
    baseline: Method

    def get(self, request: Request, *, task: str, data_fingerprint: str, sample_id: str) -> Reference:
        """Read the sample's reference, or record and keep it.

        Raises:
            UserError: a file that can't be read, or a folder that can't be written to.
        """
        path = self._path(request, task, data_fingerprint, sample_id)
        if path.exists():
            return _read(path)
        reference = record_reference(self.baseline, request)
        _write(path, reference)
        return reference

    def _path(self, request: Request, task: str, data_fingerprint: str, sample_id: str) -> Path:
        model, kwargs = request.model, request.generate_kwargs
        identity = {
            "model": [self.model, str(model.dtype), model.device.type, str(model.config._attn_implementation)],
            "sample": [task, data_fingerprint, sample_id],
            "prompt_ids": request.prompt_ids[0].tolist(),
            "limits": {name: value for name, value in sorted(kwargs.items()) if isinstance(value, _SETTING)},
            "versions": [torch.__version__, transformers.__version__],
        }
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:20]
        readable = re.sub(r"[^\w.-]+", "_", f"{task}-{sample_id}")[:80]
        return self.folder / f"{readable}-{digest}.pt"


def _read(path: Path) -> Reference:
    try:
        return Reference(**torch.load(path, weights_only=True))
    except Exception as error:  # torch raises many kinds for a file that was cut or is not its own
        raise UserError(f"the reference {path} can't be read; delete it, and it is recorded anew ({error})") from error


def _write(path: Path, reference: Reference) -> None:
    temporary = path.with_suffix(f".{uuid4().hex}")  # its own: others may record the same sample at this moment
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"tokens": reference.tokens, "log_probabilities": reference.log_probabilities}, temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch wraps what the disk says
        with suppress(OSError):
            temporary.unlink()
        raise UserError(f"the reference {path} can't be written ({str(error).splitlines()[0]})") from error
