"""A GGUF file's metadata, read as data: what is missing or broken is one line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from gguf import GGUFReader, LlamaFileType

from lazybench.errors import UserError, library_errors

PLAIN_TYPES = ("F32", "F16", "BF16")  # a precision, no quantisation


class GGUFFile:
    """The metadata and the tensors' names, sizes and types.

    Raises:
        UserError: not a GGUF file, cut off, of no known architecture, or one part of several.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with library_errors(f"{path.name} is not a readable GGUF file"):
            reader = GGUFReader(path)
            self.metadata = {name: field.contents() for name, field in reader.fields.items()}
            self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        if (parts := self.get("split.count", 0)) > 1:
            raise UserError(
                f"{path.name} is one of {parts} parts; merge them with llama.cpp's "
                "`llama-gguf-split --merge FIRST_PART MERGED.gguf` and give the merged file"
            )
        self.architecture = str(self.need("general.architecture"))

    def get(self, key: str, default: Any = None) -> Any:
        """A value of the metadata."""
        return self.metadata.get(key, default)

    def need(self, key: str) -> Any:
        """A value that must be there.

        Raises:
            UserError: it isn't.
        """
        if self.metadata.get(key) is None:
            raise UserError(f"{self.path.name} is an incomplete GGUF file: its metadata lack {key}; convert it anew")
        return self.metadata[key]

    def of_architecture(self) -> dict[str, Any]:
        """The metadata that describe the model, without the architecture's name in front."""
        start = f"{self.architecture}."
        return {key.removeprefix(start): value for key, value in self.metadata.items() if key.startswith(start)}

    @property
    def quantization(self) -> str | None:
        """As llama.cpp names it, by the file's own word or else by most of its weights; None: plain floats."""
        stated = self.get("general.file_type")
        if stated in list(LlamaFileType) and stated != LlamaFileType.GUESSED:
            name = LlamaFileType(stated).name.removeprefix("MOSTLY_").removeprefix("ALL_")
        else:
            sizes: Counter[str] = Counter()
            for tensor in self.tensors.values():
                sizes[tensor.tensor_type.name] += int(tensor.n_elements)
            name = sizes.most_common(1)[0][0] if sizes else "F32"
        return None if name in PLAIN_TYPES else name
