"""Will it fit? Asked before a weight is loaded, from the configuration alone."""

from __future__ import annotations

import psutil
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from lazybench.errors import UserError
from lazybench.models.spec import ModelSpec

BYTES_OF_QUANTISED = {"8bit": 1.0, "4bit": 0.5}


def weight_bytes(config: PretrainedConfig, bytes_per_weight: float) -> int:
    """Bytes of the weights, counted on a model without storage."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return int(sum(parameter.numel() for parameter in model.parameters()) * bytes_per_weight)


def check_fit(spec: ModelSpec, config: PretrainedConfig, dtype: torch.dtype, device: torch.device) -> None:
    """Refuse a model whose weights alone exceed the memory that is free.

    Raises:
        UserError: with the estimate, what is free, and what to try.
    """
    if spec.device_map is not None:
        return  # spread over devices and offloaded by accelerate
    needed = weight_bytes(config, BYTES_OF_QUANTISED.get(spec.quantization or "", dtype.itemsize))
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed > free:
        raise UserError(
            f"{spec.name} needs {needed / 2**30:.1f} GiB for its weights as {dtype} and {free / 2**30:.1f} GiB are free "
            f"on {device}; try model.dtype=bfloat16, model.quantization=4bit, model.device_map=auto or a smaller model"
        )
