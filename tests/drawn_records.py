"""Records as hypothesis draws them: every field, by its type."""

from __future__ import annotations

from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from lazybench.run.record import Record


def records(text: st.SearchStrategy[str], prediction: st.SearchStrategy[str]) -> st.SearchStrategy[Record]:
    """Records whose predictions are drawn from ``prediction``, their other texts from ``text``."""
    numbers = st.floats(allow_nan=False, allow_infinity=False)
    json = st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | numbers | text,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
        max_leaves=4,
    )
    plain = {type(None): st.none(), int: st.integers(-(2**62), 2**62), float: numbers, str: text}

    def drawn(hint: Any) -> st.SearchStrategy[Any]:
        if get_origin(hint) is UnionType:
            return st.one_of(*map(drawn, get_args(hint)))
        if get_origin(hint) is tuple:
            return st.lists(drawn(get_args(hint)[0]), max_size=3).map(tuple)
        if get_origin(hint) is dict:
            return st.dictionaries(text, json, max_size=3)
        return plain[hint]

    fields = {name: drawn(hint) for name, hint in get_type_hints(Record).items()}
    return st.builds(Record, **{**fields, "prediction": prediction})
