"""``lazybench``: the front of every command, and the run of what Hydra composed.

Around Hydra stand its names checked before it composes, and one line with exit code 2 for bad input: Hydra itself would
print its own error, exit with 1, and know no name that it has no file for.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lazybench.cli.choices import check_options, load_plugins, prepare, run_config
from lazybench.cli.groups import composed, config_folder, groups, register
from lazybench.cli.help import answer_help
from lazybench.cli.sweep import Outcome, ended, print_end
from lazybench.errors import UserError, command, refuse, show_any_character, unknown_name
from lazybench.pruning.settings import typed
from lazybench.run.config import RunConfig
from lazybench.run.reading import flatten

MODULES = {  # of the commands that are no run
    "experiment": "lazybench.cli.experiment",
    "report": "lazybench.report.__main__",
    "leaderboard": "lazybench.report.leaderboard",
    "verify": "lazybench.report.verify",
    "pack": "lazybench.run.campaign",
    "calibrate": "lazybench.cli.calibrate",
    "lm-eval": "lazybench.integrations.lm_eval",
}


@command
def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments say: this process's, or these; without any, say what there is.

    Returns:
        The exit code: 0 done, 1 something failed, 2 bad input, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    # torch's threads wait for each other spinning, for long: beside other work one may spin for one that has no core.
    # 1,000 rounds are some microseconds (two cores under a load of 10: a decoding step of 0.3 s in place of 2.9 s)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if re.fullmatch(r"[A-Za-z][\w-]*", given[0]) is None:
        return measure(given)
    name, *rest = given
    if name not in MODULES:
        raise unknown_name("command", name, MODULES)
    sys.argv[1:] = rest
    return int(import_module(MODULES[name]).main())


def measure(arguments: list[str]) -> int:
    """One run or a sweep, or its help.

    Raises:
        UserError: bad input, whether it is Hydra's or ours to refuse.
    """
    ended.clear()
    sys.argv[1:] = arguments
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own error and exits with 1
    try:
        load_plugins(named_plugins(arguments))
        if (text := answer_help(arguments)) is not None:
            print(text)
            return 0
        check_options(arguments)
        register()
        sys.argv[1:] = prepare(arguments)
        _job()
        if len(ended) > 1:
            print_end()
    except KeyboardInterrupt:
        return 130
    except UserError:
        raise
    except Exception as error:
        if not is_hydras(error):
            raise
        raise one_line(error) from None
    return max((code for code, _ in ended.values()), default=0)


def named_plugins(arguments: Sequence[str]) -> tuple[str, ...]:
    """The modules of ``plugins=[...]``: they are imported before Hydra composes, for their names to be known to it."""
    texts = [text for text in arguments if text.lstrip("+").startswith("plugins=")]
    values = [override.value() for override in OverridesParser.create().parse_overrides(texts)]
    return cast(tuple[str, ...], typed(tuple[str, ...], values[-1], "plugins")) if values else ()


@hydra.main(version_base=None, config_path=str(config_folder()), config_name="config")
def _job(config: DictConfig) -> Outcome:
    """One composed configuration: typed, run, reported. A failing job of a sweep does not stop the others."""
    show_any_character()  # a launcher's job is a process of its own
    settings = HydraConfig.get()
    overrides = cast(list[str], OmegaConf.to_container(settings.overrides.task))  # as typed: limit=${seed} stays so
    sweep = settings.mode is RunMode.MULTIRUN
    ended[" ".join(overrides)] = outcome = _run(config, overrides, sweep)
    return outcome


def _run(config: DictConfig, overrides: Sequence[str], sweep: bool) -> Outcome:
    folder = None
    try:
        OmegaConf.resolve(config)
        _check_who_names_code(config, overrides)
        given = cast(dict[str, Any], OmegaConf.to_container(config))
        load_plugins(typed(tuple[str, ...], given.get("plugins"), "plugins"))
        checked = run_config(config, sweep)
        if unread := unread_schedule(overrides, config, checked):
            if not sweep:
                raise UserError(f"{unread}; leave it out")
            print(f"lazybench: {unread}", file=sys.stderr)  # another job of it may read what this one does not
        folder = checked.out
        return _start(checked, sweep), folder
    except UserError as error:
        return refuse(error), folder
    except OmegaConfBaseException as error:
        return refuse(one_line(error)), folder
    except KeyboardInterrupt:
        count = sum(file.read_bytes().count(b"\n") for file in folder.glob("samples.jsonl")) if folder else 0
        kept = f"{count} record{'s are' if count > 1 else ' is'} kept in {folder}; the same command goes on from there"
        print(f"interrupted; {kept}" if count else "interrupted before the first record", file=sys.stderr)
        if sweep:
            raise  # ends the sweep, not only this job
        return 130, folder
    except Exception:
        if not sweep:
            raise
        traceback.print_exc()
        return 1, folder


def unread_schedule(overrides: Sequence[str], config: Mapping[str, Any], checked: RunConfig) -> str:
    """Words on a schedule that no method of the run reads; nothing where one does, or where none was given."""
    keys = [text for text in overrides if re.match(r"[+~]*pruning[.=]", text) and not text.endswith("=null")]
    for method, entry in zip(checked.methods, config["methods"], strict=True):
        own = entry if isinstance(entry, Mapping) else {}
        # a schedule by name, or a preset of a file, stands in its place
        if hasattr(method, "pruning") and "preset" not in own and not isinstance(own.get("pruning"), str):
            return ""
    names = ",".join(method.name for method in checked.methods)
    return f"{keys[0]} does nothing: none of methods=[{names}] prunes by it" if keys else ""


def _start(checked: RunConfig, sweep: bool) -> int:
    """Everything is checked that can be without torch; it is imported here."""
    if (checked.out / "done").exists():
        failed = json.loads((checked.out / "done").read_text(encoding="utf-8"))["failed"]
        again = f"its {failed} failed samples are tried again" if failed else "only what a higher limit adds is new"
        print(f"{checked.out} is finished, nothing is measured twice: {again}; tag=NAME measures anew", flush=True)
    from lazybench.report.page import write_run_report
    from lazybench.run.runner import run

    return run(checked, write_run_report, show=not sweep)


def _check_who_names_code(config: DictConfig, overrides: Sequence[str]) -> None:
    """What imports Python is for the person at the command line to name, for no file."""
    typed_keys = {override.lstrip("+").partition("=")[0] for override in overrides}
    for key in ("plugins", "task.parameters.include_path"):
        value = OmegaConf.select(config, key, throw_on_missing=False)
        if value and not typed_keys & {key, key.rpartition(".")[0]}:
            raise UserError(f"{key}={value} stands in a file and names code; say it on the command line to run it")


def is_hydras(error: Exception) -> bool:
    """Whether Hydra or OmegaConf refuses something: by an exception of theirs, or any raised in their own code."""
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts
    return isinstance(error, HydraException | OmegaConfBaseException) or bool({"hydra", "omegaconf"} & {*raised_in})


def one_line(error: Exception) -> UserError:
    """Hydra's error in one line: what was typed, what is wrong with it, and what is near it."""
    text = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        given, pairs = str(error.override), zip("[{('\"", "]})'\"", strict=True)
        opened = [a for a, b in pairs if (given.count(a) % 2 if a == b else given.count(a) > given.count(b))]
        why = f"{opened[0]} is not closed; " if opened else ""
        return UserError(
            f"{given!r} can't be read: {why}write KEY=VALUE, lists in quotes, as in 'methods=[baseline,lazyllm]', and "
            "other text that holds , = [ or { in quotes of its own, as in 'out=\"a,b\"'"
        )
    if (match := re.search(r"Could not override '([^']+)'|override '\+?([\w.@/]+)", text)) is not None:
        key = match[1] or match[2]
        chosen = [text for text in sys.argv[1:] if text.partition("=")[0] in groups() and "," not in text]
        keys = [key.partition("[")[0] for key in flatten(OmegaConf.to_container(composed(chosen)))]
        ends = {name.split(".")[-1]: name for name in keys}  # the last part alone, wherever it stands
        close = difflib.get_close_matches(key, [*keys, *groups()], n=3, cutoff=0.7)
        close = close or [ends[end] for end in difflib.get_close_matches(key.split(".")[-1], ends, n=1, cutoff=0.7)]
        hint = f"did you mean {' or '.join(dict.fromkeys(close))}? " if close and close[0] != key else ""
        return UserError(f"unknown key {key!r}; {hint}`python run.py --help` lists the keys")
    return UserError(re.sub(r"\s*See https?://\S+.*", "", text))
