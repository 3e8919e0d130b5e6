"""GGUF files: converted once to a safetensors folder with a tokenizer built from the file's own metadata.

What transformers' reader drops without a word is carried over here (rope scaling, what ends a generation) or refused:
every metadata key of the architecture and every weight of the file must arrive in the model.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
import tempfile
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

from lazybench.errors import UserError, library_errors
from lazybench.models.fingerprint import cache_root, sha256_of
from lazybench.models.gguf_file import GGUFFile
from lazybench.models.gguf_tokenizer import gguf_tokenizer
from lazybench.models.weights import load_whole

MANIFEST = "complete.json"  # of a converted folder: the weights' type, its files and their sizes
VERSION = 2  # of the conversion: folders of another one are not taken
ROPE_FACTORS = "rope_freqs.weight"  # what each rotary frequency is divided by: Llama 3's scaling
OPTIONAL = {"vocab_size", "rope.freq_base", "rope.dimension_count", "attention.head_count_kv", "attention.key_length"}
CARRIED = {"rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"}
NO_MATTER = {"vocab_size", "rope.scaling.finetuned", "tensor_data_layout"}
SIZES = {"expert_feed_forward_length", "expert_shared_feed_forward_length"}  # a wrong one is a weight of another shape


def converted(path: Path) -> Path:
    """The folder that holds this GGUF file's weights and tokenizer, made on the first call.

    It is made beside its place and renamed into it; a list of its files and their sizes tells a torn one.

    Raises:
        UserError: no such file, not a whole GGUF file, something in it that can't be carried over, no space left.
    """
    if not path.is_file():
        raise UserError(f"no file {path}; model.path must name a checkpoint folder or a .gguf file")
    folder = _place(path)
    if _manifest(folder) is None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="converting-", dir=folder.parent) as scratch:
                making = Path(scratch) / folder.name
                making.mkdir()
                quantization = _convert(path, making)
                sizes = {file.name: file.stat().st_size for file in making.iterdir()}
                (making / MANIFEST).write_text(json.dumps({"quantization": quantization, "files": sizes}))
                if _manifest(folder) is None:  # unless another process was quicker
                    shutil.rmtree(folder, ignore_errors=True)
                    making.rename(folder)
        except (OSError, SafetensorError) as error:
            if _manifest(folder) is None:
                raise UserError(
                    f"can't keep the converted model under {folder.parent}: "
                    f"{getattr(error, 'strerror', None) or error}; free space there or set LAZYBENCH_CACHE to another "
                    "folder"
                ) from error
    return folder


def quantization_of(path: Path) -> str | None:
    """What the file's weights are, without converting it; None: plain floats."""
    manifest = _manifest(_place(path))
    return GGUFFile(path).quantization if manifest is None else manifest["quantization"]


def _place(path: Path) -> Path:
    return cache_root() / f"gguf-{sha256_of(path)[:16]}-{VERSION}"


def _manifest(folder: Path) -> dict[str, Any] | None:
    """What the folder says of itself; None: it isn't there, or not whole."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        whole = all((folder / name).stat().st_size == size for name, size in manifest["files"].items())
        return manifest if whole and manifest["files"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _convert(path: Path, folder: Path) -> str | None:
    file = GGUFFile(path)
    tokenizer = gguf_tokenizer(file)
    model = _model(file)
    # a model that remembers its quantised origin can't be saved by newer transformers: hand its weights to a plain one
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.pad_token_id = tokenizer.pad_token_id
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    for settings in (plain.config, plain.generation_config):
        settings.bos_token_id, settings.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        settings.pad_token_id = tokenizer.pad_token_id
    ends = [file.get(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom")]  # of a turn, of a message
    if others := [end for end in ends if end not in (None, tokenizer.eos_token_id)]:
        plain.generation_config.eos_token_id = [tokenizer.eos_token_id, *others]
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return file.quantization


def _model(file: GGUFFile) -> PreTrainedModel:
    """The file's model as transformers reads it, with what it doesn't read."""
    folder, name = file.path.parent, file.path.name
    with library_errors(f"{name} can't be loaded"):
        config = AutoConfig.from_pretrained(folder, gguf_file=name)
        _carry_rope(file, config)
        _check_metadata(file, config)
        print(f"{name}: converted once, for this start and all later ones", file=sys.stderr)
        with redirect_stderr(StringIO()):  # transformers' progress, a line for each weight
            model, _ = load_whole(folder, name, config=config, dtype=torch.float32, gguf_file=name)
    held = sum(int(tensor.n_elements) for name, tensor in file.tensors.items() if name != ROPE_FACTORS)
    if held != (taken := sum(weight.numel() for weight in model.parameters())):
        raise UserError(
            f"{file.path.name} holds {held:,} weights, and transformers' {model.config.model_type} takes {taken:,} of "
            "them (no biases, say): another model would be measured; give model.path the checkpoint's folder"
        )
    return model


def _carry_rope(file: GGUFFile, config: PretrainedConfig) -> None:
    """Rope scaling, which transformers reads for one architecture alone."""
    stated = file.of_architecture()
    factor = float(stated.get("rope.scaling.factor") or 1.0)
    kind = stated.get("rope.scaling.type", "linear")  # as llama.cpp takes it
    scaling: dict[str, Any] = {}
    if kind not in ("none", "linear"):
        raise UserError(
            f"{file.path.name} scales its positions by {kind}; carried over are linear and llama3's. Give model.path "
            "the checkpoint's folder"
        )
    if kind != "none" and factor != 1:
        scaling = {"rope_type": kind, "factor": factor}
    if (factors := file.tensors.get(ROPE_FACTORS)) is not None:
        if scaling:
            raise UserError(f"{file.path.name} scales its positions twice: {kind} and {ROPE_FACTORS}")
        # llama3's parameters are not in the file, but what they come to: a factor for each frequency at every length
        each = factors.data.tolist()
        scaling = {"rope_type": "longrope", "short_factor": each, "long_factor": each, "attention_factor": 1.0}
        scaling |= {"factor": 1.0, "original_max_position_embeddings": config.max_position_embeddings}
    if scaling:
        every = getattr(config, "rope_parameters", None) or {}
        if "full_attention" in every:  # by kind of layer: those with a window have theirs to themselves
            config.rope_parameters = {**every, "full_attention": {**every["full_attention"], **scaling}}
        else:
            config.rope_parameters = {**every, **scaling}


def _check_metadata(file: GGUFFile, config: PretrainedConfig) -> None:
    """Every key of the architecture is read, or states what the model does anyway.

    Raises:
        UserError: a key that is missing, or one that would be lost.
    """
    known = {"qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe"}.get(file.architecture, file.architecture)
    names: dict[str, Any] = GGUF_CONFIG_MAPPING
    read = {key for key, name in names.get(known, {}).items() if name is not None}
    stated = file.of_architecture()
    for key in sorted(read - OPTIONAL):
        file.need(f"{file.architecture}.{key}")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    anyway = {
        "rope.dimension_count": int(head_dim * rope.get("partial_rotary_factor", 1)),
        "rope.freq_base": rope.get("rope_theta"),
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "rope.scaling.attn_factor": 1,
    }
    for key, value in stated.items():
        if key in anyway and value != anyway[key]:
            raise UserError(f"{file.path.name}: {key}={value}, and the model that transformers makes has {anyway[key]}")
        if key not in {*read, *anyway, *CARRIED, *NO_MATTER, *SIZES}:
            raise UserError(
                f"{file.path.name}: {file.architecture}.{key}={str(value)[:60]} can't be carried over, so another "
                "model would be measured; give model.path the checkpoint's folder"
            )
