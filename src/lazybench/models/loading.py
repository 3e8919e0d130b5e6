"""From a ModelSpec to a plain Hugging Face model with its tokenizer, with one clear line where that fails."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import version
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.quantizers.auto import AutoHfQuantizer
from transformers.utils import logging

from lazybench.errors import UserError, library_errors
from lazybench.models.chat import chat_wrapper, check_wrapper, pinned_date, postprocessor
from lazybench.models.checkpoint import check_whole, local_path, place_of
from lazybench.models.fit import check_fit
from lazybench.models.gguf import quantization_of
from lazybench.models.hub import model_folder
from lazybench.models.random_weights import byte_tokenizer, cut_depth, random_model, true_shape, widen
from lazybench.models.spec import LoadedModel, ModelSpec
from lazybench.models.weights import load_whole, quiet, some
from lazybench.models.xgen_tokenizer import xgen_tokenizer
from lazybench.pruning.checks import window_of

NO_CODE: dict[str, Any] = {"trust_remote_code": False}  # of a checkpoint; left open, transformers would ask
UNLIMITED_WINDOW = 1 << 20  # bloom states none; a tokenizer's "no limit" is 1e30
# greedy decoding: sampling settings would only warn; a clock or a cache of the checkpoint's would change numbers
NOT_THE_CHECKPOINTS = ("temperature", "top_p", "top_k", "max_time", "cache_implementation", "num_beams")


def load_model(spec: ModelSpec) -> LoadedModel:
    """Load a model for measuring: in evaluation mode, on its device, greedy, nothing attached.

    Raises:
        UserError: weights that are missing, gated, out of reach or too large; settings that don't go together.
    """
    logging.disable_progress_bar()
    device = device_of(spec.device)
    dtype = dtype_of(spec.dtype, device)
    model, tokenizer, facts = (_random if spec.weights == "random" else _pretrained)(spec, dtype, device)
    model.eval()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    model.generation_config.do_sample = False
    for name in NOT_THE_CHECKPOINTS:
        setattr(model.generation_config, name, None)
    if model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    _check_generation(model, spec.name)
    check_wrapper(spec.chat_format, tokenizer)
    without_template = spec.chat_format == "tokenizer" and not tokenizer.chat_template
    text = model.config.get_text_config()
    window = window_of(text) or getattr(text, "max_seq_len", None)
    window = int(window or min(tokenizer.model_max_length, UNLIMITED_WINDOW))
    return LoadedModel(
        spec=spec,
        model=model,
        tokenizer=tokenizer,
        window_tokens=window,
        wrap_chat=chat_wrapper(spec.chat_format, tokenizer),
        postprocess=postprocessor(spec.chat_format),
        provenance={
            "name": spec.name,
            "quantization": spec.quantization,
            **facts,
            "weights": spec.weights,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": spec.device_map or device.type,
            "attention": model.config._attn_implementation,
            "parameters": model.num_parameters(),
            "layers": text.num_hidden_layers,
            "window_tokens": window,
            "chat_format": "none" if without_template else spec.chat_format,
            **({"chat_date": date} if (date := pinned_date(spec.chat_format, tokenizer)) else {}),
        },
    )


def device_of(name: str) -> torch.device:
    """The device that ``model.device`` names."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"model.device={name} can't be used here ({reason}); auto, cpu, cuda or cuda:0") from error
    return device


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """The precision that ``model.dtype`` names, on that device."""
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _check_generation(model: Any, name: str) -> None:
    """Refuse a generation configuration under which every sample would fail: one token is tried.

    Raises:
        UserError: it decodes otherwise than greedily, or transformers refuses it.
    """
    ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with library_errors(f"the generation_config.json of {name} can't be used", "; take that out of it"):
        if (mode := model.generation_config.get_generation_mode().value) != "greedy_search":
            raise ValueError(f"it asks for {mode.replace('_', ' ')}, and decoding is greedy here")
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=1)


Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]


def _pretrained(spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> Loaded:
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": spec.attention}
    if spec.device_map is not None:
        options["device_map"] = spec.device_map
    elif device.type != "cpu":
        options["device_map"] = {"": device}  # straight to the device, never twice in memory
    if spec.quantization is not None:
        options["quantization_config"] = _quantization(spec.quantization, dtype)
    folder, facts = place_of(spec)
    with library_errors(f"can't load {spec.name} from {facts['source']}"):
        if (folder / "adapter_config.json").is_file():  # beside it lies, or from it follows, another model's weights
            raise UserError(
                f"{facts['source']} holds an adapter: merge it into its model first (merge_and_unload of peft, "
                "save_pretrained), and give that folder"
            )
        if folder == spec.path and spec.tokenizer is None:  # the hub's weights are still to come
            check_whole(folder)
        config = AutoConfig.from_pretrained(folder, **NO_CODE)
        if "/" in str(config._attn_implementation):
            raise UserError(
                f"{facts['source']}: its config.json names a kernel of the hub, which is code; leave it out"
            )
        _check_shape(spec, config)
        facts["quantization"] = quantized_as(spec, config)
        check_fit(spec, config, dtype, device)
        tokenizer = xgen_tokenizer(folder) if spec.tokenizer else AutoTokenizer.from_pretrained(folder, **NO_CODE)
        if spec.hub_id is not None and facts["source"] == f"hub {spec.hub_id}":
            folder = model_folder(spec.hub_id, spec.revision, with_weights=True)
            facts["revision"] = folder.name  # the commit, also where the configuration pins none
        model, unused = load_whole(folder, spec.name, config=config, **NO_CODE, **options)
    if unused:
        facts["unused_weights"] = unused[:20]
        print(f"{facts['source']}: {type(model).__name__} has no use for {some(unused)}", file=sys.stderr)
    return model, tokenizer, facts


def _random(spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> Loaded:
    if spec.quantization is not None or spec.device_map is not None:
        raise UserError("model.weights=random goes with neither model.quantization nor model.device_map")
    config = shape_of(spec)
    check_fit(spec, config, dtype, device)
    model = random_model(config, dtype, device, spec.attention)
    tokenizer = byte_tokenizer(config.get_text_config().vocab_size)
    return model, tokenizer, {"source": "random weights of the true shape", "tokenizer": "one id a byte"}


def shape_of(spec: ModelSpec) -> PretrainedConfig:
    """The configuration of what ``load_model`` would give, without its weights.

    Raises:
        UserError: no shape is stated or in reach, another model's under this model's name, too few layers.
    """
    if spec.path is None and (spec.config or spec.weights == "random"):
        config = true_shape(spec)
    else:
        folder, facts = place_of(spec, hashed=False)
        with library_errors(f"can't read the config.json of {facts['source']}"):
            config = AutoConfig.from_pretrained(folder, **NO_CODE)
        _check_shape(spec, config)
    if spec.num_layers is not None:
        cut_depth(config, spec.num_layers)
    if spec.window_tokens is not None:
        widen(config, spec.window_tokens)
    return config


def _check_shape(spec: ModelSpec, config: PretrainedConfig) -> None:
    """Refuse another model under a model's name: its label, chat format and prompt limit would be wrong.

    Raises:
        UserError: the checkpoint's shape is not the one that the model's configuration states.
    """
    if not spec.config or spec.embedded is not None:  # the package pins its file
        return
    stated, found = true_shape(spec).get_text_config(), config.get_text_config()
    different = [
        f"{name} {getattr(found, name, None)} in place of {getattr(stated, name)}"
        for name in ("model_type", "num_hidden_layers", "hidden_size", "vocab_size")
        if getattr(found, name, None) != getattr(stated, name)
    ]
    if different:
        where = spec.path or spec.hub_id
        raise UserError(
            f"{where} is not model={spec.name}: {', '.join(different)}; load it with model=custom "
            f"model.{'path' if spec.path else 'hub_id'}={where}"
        )


def quantized_as(spec: ModelSpec, config: PretrainedConfig) -> str | None:
    """What the weights are stored or loaded as: ``Q4_1``, ``4bit``, ``gptq 4 bits``; None: plain floats.

    Raises:
        UserError: a method that transformers doesn't know: it would load the weights as plain floats.
    """
    if spec.weights == "random":
        return None
    if spec.quantization is not None:
        return spec.quantization
    if (path := local_path(spec)) is not None and path.suffix == ".gguf":
        return quantization_of(path)
    stated = getattr(config, "quantization_config", None) or {}
    stated = stated if isinstance(stated, dict) else stated.to_dict()
    bits = stated.get("bits") or next((bits for bits in (4, 8) if stated.get(f"load_in_{bits}bit")), None)
    method = str(stated.get("quant_method", "") or "").rpartition(".")[2].lower()
    with quiet():
        if stated and not (method and AutoHfQuantizer.supports_quant_method(stated)):
            raise UserError(
                f"the config.json of {spec.name} names quant_method={stated.get('quant_method')}, which transformers "
                f"{version('transformers')} doesn't know; give a checkpoint of plain floats or of a kind that it reads"
            )
    return " ".join(filter(None, [method, f"{bits} bits" if bits else ""])) or None


def _quantization(bits: str, dtype: torch.dtype) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"model.quantization={bits} needs bitsandbytes; run: pip install bitsandbytes")
    return BitsAndBytesConfig(
        load_in_8bit=bits == "8bit",
        load_in_4bit=bits == "4bit",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_type="nf4",
    )
