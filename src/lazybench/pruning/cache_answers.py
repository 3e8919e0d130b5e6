"""What transformers asks of a cache and is answered alike whatever the cache holds, versions 5.2 to 5.23."""

from __future__ import annotations

from typing import Any

from transformers.cache_utils import Cache

from lazybench.errors import UserError


class CacheAnswers(Cache):
    """The part of ``Cache``'s protocol that needs no more than the number of tokens.

    Attributes:
        seen: tokens so far, padding included.
        method: whose cache it is, for errors.
    """

    layers: Any = ()
    layer_class_to_replicate = None
    offloading = False
    is_compileable = False
    is_initialized = True
    is_croppable = False

    seen: int
    method: str

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * len(self)

    @property
    def is_linear(self) -> list[bool]:
        return [False] * len(self)

    @property
    def is_dummy(self) -> list[bool]:
        return [False] * len(self)

    def __bool__(self) -> bool:
        return True

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        return -1

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[int, int]:
        """(keys, offset) for ``query_length`` new tokens; version 5.2 passes their positions instead."""
        new = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self.seen + new, 0

    def crop(self, *_: Any, **__: Any) -> None:
        raise UserError(f"assisted decoding takes tokens back, which {self.method}'s cache can't; generate without it")

    def activate_past_recording(self) -> None:
        self.crop()

    def reset(self) -> None:
        raise UserError(f"{self.method}'s cache can't be reset; leave past_key_values out to start a new one")
