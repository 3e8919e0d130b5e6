"""Hydra's errors in one line: what was typed, what is wrong with it, and what is near it."""

from __future__ import annotations

import difflib
import re
import sys
import traceback
from pathlib import Path

from omegaconf import OmegaConf

from lazybench.cli.groups import composed, groups
from lazybench.errors import UserError
from lazybench.run.reading import flatten


def is_hydras(error: Exception) -> bool:
    """Whether Hydra or OmegaConf refuses something: by an exception of theirs, or any raised in their own code."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts
    return isinstance(error, HydraException | OmegaConfBaseException) or bool({"hydra", "omegaconf"} & {*raised_in})


def one_line(error: Exception) -> UserError:
    """The line for an error that Hydra or OmegaConf raised while it read the command line or composed."""
    from hydra.errors import OverrideParseException

    text = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return UserError(
            f"{error.override!r} can't be read: write KEY=VALUE, lists in quotes and without blanks, as in "
            "'methods=[baseline,lazyllm]', and other text that holds , = [ or { in quotes of its own, as in "
            "'out=\"a,b\"'"
        )
    if (match := re.search(r"Could not override '([^']+)'|override '\+?([\w.@/]+)", text)) is not None:
        key = match[1] or match[2]
        known = [*_keys(), *groups()]
        close = difflib.get_close_matches(key, known, n=3, cutoff=0.7)
        if not close:  # the last part alone, wherever it stands
            last = key.split(".")[-1]
            ends = {name.split(".")[-1]: name for name in known}
            close = [ends[end] for end in difflib.get_close_matches(last, ends, n=1, cutoff=0.7)]
        hint = f"did you mean {' or '.join(close)}? " if close and close[0] != key else ""
        return UserError(f"unknown key {key!r}; {hint}`python run.py --help` lists the keys")
    return UserError(re.sub(r"\s*See https?://\S+.*", "", text))


def _keys() -> list[str]:
    """Every key of the configuration that was chosen, as it is typed: ``task.parameters.length``."""
    chosen = [text for text in sys.argv[1:] if text.partition("=")[0] in groups() and "," not in text]
    config = OmegaConf.to_container(composed(chosen))
    assert isinstance(config, dict)
    return list(dict.fromkeys(key.partition("[")[0] for key in flatten(config)))
