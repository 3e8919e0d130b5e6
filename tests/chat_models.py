"""Tiny real models with the chat formats that prompts go through: ChatML, a template that strips, Llama 2, XGen."""

from __future__ import annotations

from pathlib import Path

from conftest import save_tiny_checkpoint
from tiny_checkpoints import save_llama2, save_xgen

from lazybench.models import LoadedModel, ModelSpec, load_model
from lazybench.models.chat import XGEN_HEADER

# SmolLM2's and Qwen2.5's form: a default system turn, and the generation prompt
CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRIPPING = "[INST] {{ messages[0]['content'] | trim }} [/INST]"
# what stands before and after the user's text
FORMATS = {
    "chatml": (
        "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
    "stripping": ("[INST] ", " [/INST]"),
    "llama2": ("[INST]", "[/INST]"),
    "xgen": (f"{XGEN_HEADER} ### Human: ", "\n###"),
    "none": ("", ""),
}  # fmt: skip


def save_chat(folder: Path, template: str) -> Path:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(save_tiny_checkpoint(folder))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    return folder


def chat_models(root: Path) -> dict[str, LoadedModel]:
    """A model for each of ``FORMATS``, saved below ``root``."""
    specs = {
        "chatml": ModelSpec("tiny", path=save_chat(root / "chatml", CHATML)),
        "stripping": ModelSpec("tiny", path=save_chat(root / "stripping", STRIPPING)),
        "llama2": ModelSpec("tiny", path=save_llama2(root / "llama2"), chat_format="llama2"),
        "xgen": ModelSpec("tiny", path=save_xgen(root / "xgen"), chat_format="xgen", tokenizer="xgen"),
        "none": ModelSpec("tiny", path=root / "llama2", chat_format="none"),
    }
    return {name: load_model(spec) for name, spec in specs.items()}
