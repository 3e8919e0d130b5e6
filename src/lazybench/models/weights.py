"""Weights from a checkpoint's files, all of them: nothing is drawn at random for what is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from lazybench.errors import UserError
from lazybench.pruning.layers import find_layers

SHOWN = 3


def load_whole(folder: Path | str, source: str, **options: Any) -> tuple[PreTrainedModel, list[str]]:
    """A model with every weight from its checkpoint.

    Args:
        source: the checkpoint's name in a refusal.
        options: of ``from_pretrained``.

    Returns:
        the model, and the names of the weights that it doesn't use (a vision tower's, a second head's).

    Raises:
        UserError: weights that are missing, of another shape, or of layers that the model doesn't have.
    """
    with quiet():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    model, info = loaded  # tied weights are not missing there, nor are buffers that the model makes itself
    if missing := info["missing_keys"]:
        raise UserError(
            f"{source} lacks {some(missing)}: complete the checkpoint (every shard of it, the configuration that "
            "belongs to it), or measure speed alone with model.weights=random"
        )
    if mismatched := info["mismatched_keys"]:
        _, found, wanted = min(mismatched)
        raise UserError(
            f"{source} does not fit its configuration: {some([name for name, *_ in mismatched])}; the first is "
            f"{list(found)} in the file and {list(wanted)} in config.json"
        )
    unused = sorted(info["unexpected_keys"])
    if unused and not getattr(model.config, "quantization_config", None):  # whose scales are its own
        layers = find_layers(model)[1]
        prefix = next(name for name, module in model.named_modules() if module is layers)
        if foreign := [name for name in unused if name.startswith(f"{prefix}.")]:
            raise UserError(
                f"{source} holds {some(foreign)} that its configuration leaves out: another model would be measured; "
                "its config.json must be the one that belongs to the weights"
            )
    return model, unused


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own report, which would stand in front of the one line."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def some(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:SHOWN])
    return f"{len(names)} weight{'s' * (len(names) > 1)} ({shown}{', ...' * (len(names) > SHOWN)})"
