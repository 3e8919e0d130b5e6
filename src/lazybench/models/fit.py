"""Will it fit? Asked before a weight is downloaded or loaded, from the configuration alone."""

from __future__ import annotations

import psutil
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from lazybench.errors import UserError
from lazybench.models.spec import ModelSpec

QUANTISED_BYTES = {"8bit": 1.0, "4bit": 0.5}
GIB = 2**30


def weight_bytes(config: PretrainedConfig, dtype: torch.dtype, quantization: str | None = None) -> int:
    """Bytes of the weights, counted on a model without storage. Embeddings are never quantised."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    embeddings = {id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer}
    inner = QUANTISED_BYTES.get(quantization or "", dtype.itemsize)
    return int(sum(p.numel() * (dtype.itemsize if id(p) in embeddings else inner) for p in model.parameters()))


def free_bytes(device: torch.device, device_map: str | None) -> int:
    """Memory that is free for weights: of the device, or with a device map of all GPUs together."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    indices = range(torch.cuda.device_count()) if device_map is not None else [device.index or 0]
    return int(sum(torch.cuda.mem_get_info(index)[0] for index in indices))


def check_fit(spec: ModelSpec, config: PretrainedConfig, dtype: torch.dtype, device: torch.device) -> None:
    """Refuse a model whose weights alone exceed the memory that is free.

    Raises:
        UserError: with the estimate, what is free, and what to try.
    """
    needed = weight_bytes(config, dtype, spec.quantization)
    free = free_bytes(device, spec.device_map)
    if needed > free:
        raise UserError(
            f"{spec.name} needs {needed / GIB:.1f} GiB for its weights as {spec.quantization or dtype}, and "
            f"{free / GIB:.1f} GiB are free on {device.type}; try model.dtype=bfloat16, model.quantization=4bit, "
            "model.device_map=auto over several GPUs, or a smaller model"
        )
