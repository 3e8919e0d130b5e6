"""Every method by its name. ``build`` makes one of plain data, ``label`` and ``title`` name one for people."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from lazybench.errors import naming_errors, unknown_name
from lazybench.methods import (  # noqa: F401 - each registers itself
    asl,
    baseline,
    claa,
    dash,
    fastkv,
    first_last,
    gemfilter,
    h2o,
    lazyllm,
    lazyllm_evicted,
    oracle,
    presets,
    prompt_compression,
    pyramid_infer,
    random_drop,
    snapkv,
    spec_prefill,
    static_pruning,
    taper,
    uniprefill,
)
from lazybench.methods.base import METHODS, Method, PolicyMethod, flat, register, shown
from lazybench.pruning.settings import build as build_settings

__all__ = ["METHODS", "Method", "PolicyMethod", "build", "find", "label", "register", "title"]


def find(name: str) -> type[Method]:
    """The method of that name.

    Raises:
        UserError: there is none.
    """
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]


def build(name: str, params: Mapping[str, Any] | None = None, default: Method | None = None) -> Method:
    """A method from what a configuration or a record says of it.

    Args:
        params: parameters by name, as JSON types; what is left out keeps its default. ``preset="FILE.yaml@2x"`` stands
            for those of a file (``presets``); what else is given goes on top.
        default: where they come from without such a preset; None: the method's own defaults.

    Raises:
        UserError: no such method, preset or parameter, or a value that is not allowed.
    """
    kind = find(name)
    of_file, rest = presets.split(name, params or {})
    below = default or kind()
    if of_file:
        with naming_errors(f"preset={(params or {})['preset']}"):
            below = build_settings(kind, of_file, name, kind())
    return build_settings(kind, rest, name, below)


def label(name: str, params: Mapping[str, Any]) -> str:
    """Parameters in a few words, for people; of a method that is not at hand too."""
    with suppress(KeyError, TypeError, AttributeError):  # another method's, or no parameters at all: as they are
        return METHODS[name].label_of(params)
    return " ".join(f"{key}={shown(value)}" for key, value in flat(params).items())


def family(name: str, params: Mapping[str, Any]) -> str:
    """What settings of one curve have in common, in words: the label without what says how much is kept."""
    with suppress(KeyError, TypeError, AttributeError):
        return METHODS[name].family_of(params)
    return ""


def title(name: str) -> str:
    """A method's name in tables and figures."""
    return METHODS[name].title if name in METHODS else name
