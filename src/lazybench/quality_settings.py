"""The settings at which ``experiment=quality`` judges each method; a leaderboard's curve is one method's along them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TAPER = [0.13, 0.27, 0.4, 0.53, 0.67, 0.8]  # methods.taper.DEPTHS, which would bring torch along

# Settings from gentle to harsh, so that each method's own curve encloses 1.5x, 2x and 3x where it can reach them.
QUALITY: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "taper": [
        {"depths": TAPER, "keep": [0.85, 0.92, 0.94, 0.95, 0.96, 0.98]},
        *({"preset": name} for name in ("safe", "balanced", "fast")),
        {"depths": TAPER, "keep": [0.15, 0.4, 0.5, 0.6, 0.7, 0.8], "last_share": 0.08},
    ],
    "lazyllm": [
        {"pruning": {"layers": None, "depths": [0.3, 0.6, 0.9], "keep": [keep] * 3}}
        for keep in (0.75, 0.5, 0.35, 0.2, 0.1)
    ],
    "static_pruning": [{"variant": "continue", "keep": keep} for keep in (0.7, 0.6, 0.3, 0.1)],
    "gemfilter": [{"keep": 0.4}, {"keep": 0.3}, {"keep": 0.1}, {"keep": 0.1, "depth": 0.2}],
    # no eviction: what the choice of tokens loses, not the cache's
    "fastkv": [
        {"propagate": keep, "depth": depth, "retain": 1} for keep, depth in ((0.4, 0.5), (0.25, 0.25), (0.08, 0.25))
    ],
    "claa": [{"keep": keep, "depth": depth, "retain": 1} for keep, depth in ((0.4, 0.5), (0.25, 0.25), (0.08, 0.25))],
    # on short prompts of a small model the ranks seldom settle: below=1 prunes at the second layer compared
    "asl": [
        {"keep": 0.1, "below": 0.98},
        *({"keep": keep, "below": 1.0, "depth": depth} for keep, depth in ((0.4, 0.5), (0.4, 0.25), (0.1, 0.25))),
    ],
    "uniprefill": [{"mass": mass} for mass in (0.995, 0.99, 0.9, 0.3)],
    "pyramid_infer": [{"keep": keep} for keep in (0.9, 0.7, 0.5, 0.25, 0.1)],
    "spec_prefill": [{"keep": keep} for keep in (0.5, 0.3, 0.15)],
    # sentences need no parser; the context alone is shortened, so a task that does not tell it has no such record
    "prompt_compression": [{"keep": keep, "unit": "sentence"} for keep in (0.7, 0.5, 0.3)],
    "first_last": [{"keep": keep} for keep in (0.75, 0.7, 0.45, 0.3)],
    "random_drop": [{"keep": keep, "repeats": 1} for keep in (0.7, 0.45, 0.3)],
    "snapkv": [{"keep": keep} for keep in (0.5, 0.2, 0.1)],
    "h2o": [{"keep": keep} for keep in (0.5, 0.2, 0.1)],
    "lazyllm_evicted": [  # equal memory: what the early layers hold shrinks with what the late ones get
        {"retain": retain, "pruning": {"layers": None, "depths": [0.3, 0.6, 0.9], "keep": [keep] * 3}}
        for keep, retain in ((0.75, 0.5), (0.5, 0.2), (0.35, 0.1))
    ],
    "oracle": [{"keep": 0.3}, {"keep": 0.1}, {"keep": 0.1, "depth": 0.25}],
}


def quality_methods() -> list[Any]:
    """The baseline, and every method of ``QUALITY`` at each of its settings."""
    return [
        "baseline",
        *({"method": method, **setting} for method, settings in QUALITY.items() for setting in settings),
    ]
