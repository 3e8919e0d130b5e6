"""What is typed, as Hydra and ``run.config`` can take it: names that no file stands for, and a user's own modules.

``task=lm_eval/gsm8k``, ``model=OWNER/NAME`` and ``model=FOLDER_OR_GGUF`` are added to the groups before Hydra composes,
so that they work wherever a file's name does, in sweeps too.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, cast

from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from lazybench.cli.groups import add, config_folder, groups, model_file, names, node_of, register
from lazybench.errors import UserError, naming_errors, unknown_name
from lazybench.models.spec import ModelSpec
from lazybench.pruning.schedule import PruningSchedule
from lazybench.pruning.settings import build, path_of, plain
from lazybench.run.config import RunConfig, build_config

MAY_BE_NULL = ("experiment", "size", "experiment_size")  # the other groups have one choice in every run
NO_OTHER_FILES = (
    "Hydra's way to other files is closed, for they could name code; a file of settings is preset=FILE.yaml@NAME, "
    "a model's model=FOLDER, everything else stands on the command line"
)
LM_EVAL = ("include_path", "tokenizer", "max_seq_lengths")  # parameters; others that a task's files read: +KEY
_checkpoints: dict[str, Path] = {}  # by their names in the group


def load_plugins(modules: Sequence[str]) -> None:
    """Import a user's own modules, the current folder first: their methods and tasks are known by name from then on.

    Raises:
        UserError: there is no such module, or it cannot be imported.
    """
    if modules and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UserError(f"plugins=[{name}] cannot be imported, from this folder or elsewhere: {reason}") from None
    if modules:
        register.cache_clear()


def prepare(overrides: Sequence[str]) -> list[str]:
    """The overrides with every choice of a group checked, and what is new to Hydra made known to it.

    Raises:
        UserError: a choice that does not exist.
    """
    unset = {f"{group}=null" for group in MAY_BE_NULL}  # the default, which Hydra knows in its own files alone
    return [_prepare(override) for override in overrides if override not in unset]


def _prepare(override: str) -> str:
    key, sign, value = override.partition("=")
    group = key.lstrip("+~").partition("@")[0]
    if group.startswith("method."):
        raise UserError(f"{override}: a method's settings stand beside it, as in {_entry(group, value)}")
    hydras_own = re.search(r"[\[\](){}'\"$]", value)  # glob(*), choice(...), quotes: left for Hydra to read
    if group in ("hydra", "hydra.searchpath"):
        raise UserError(f"{override}: {NO_OTHER_FILES}")
    if group in groups() and sign and not hydras_own:
        return f"{key}={','.join(_choice(group, choice) for choice in value.split(','))}"
    if "/" in group or group in groups():  # Hydra might look for a file
        if re.search(r"^/|\.\.", group) or re.search(r"\.\.|[/~]", value):
            raise UserError(f"{override}: {NO_OTHER_FILES}")
    elif sign and not hydras_own:  # neither ~ nor what is not ASCII is in Hydra's syntax
        value = ",".join(str(path_of(part)) if part.startswith("~") else part for part in value.split(","))
        return f"{key}={value}" if value.isascii() or "," in value else f'{key}="{value}"'
    return override


def _entry(key: str, value: str) -> str:
    """``method.taper.chunk=4`` as it is typed in a list of methods."""
    _, name, *parts = key.split(".")
    for part in reversed(parts):
        value = f"{{{part}: {value}}}"
    return f"'methods=[baseline,{{method: {name}, {value.removeprefix('{')}]'"


def check_options(arguments: Sequence[str]) -> None:
    """Refuse options that there are not, and those of Hydra that read anybody's files as if they were this program's.

    Raises:
        UserError: one of them is there, written out or shortened: one even runs a pickle.
    """
    parser = get_args_parser()
    parser.error = _refuse_option  # type: ignore[method-assign]
    given = parser.parse_args(list(arguments))
    for name in ("config_path", "config_name", "config_dir", "experimental_rerun"):
        if (value := getattr(given, name)) is not None:
            raise UserError(f"--{name.replace('_', '-')} {value}: {NO_OTHER_FILES}")


def _refuse_option(message: str) -> NoReturn:
    raise UserError(f"{message}; `lazybench --help` lists what there is, and options stand first")


def _choice(group: str, choice: str) -> str:
    if choice in (known := names(group)):
        return choice
    if group == "task" and choice.split("/")[0] == "lm_eval":
        return _lm_eval_task(choice)
    if group == "model" and (model := _model(choice)) is not None:
        return model
    if group == "pruning":
        PruningSchedule.preset(choice)
    raise unknown_name(group, choice, known)


def _lm_eval_task(choice: str) -> str:
    name = choice.removeprefix("lm_eval").removeprefix("/")
    if re.fullmatch(r"[\w.\-]+", name) is None:
        raise UserError(f"task={choice} needs the name of one of lm-eval's generation tasks, as in task=lm_eval/gsm8k")
    add("task/lm_eval", name, {"name": choice, "datasets": [choice], "parameters": dict.fromkeys(LM_EVAL)})
    return choice


def _model(choice: str) -> str | None:
    """A checkpoint on this machine, or one on the hub; None: the name of neither."""
    path = path_of(choice)
    if path.exists() or path.suffix == ".gguf" or choice.startswith(("/", "./", "../", "~")):
        if not (path.suffix == ".gguf" and path.is_file()) and not (path / "config.json").is_file():
            raise UserError(f"no checkpoint at {path}: model= needs a folder with config.json, or a .gguf file")
        path = path.resolve()
        key = _plain(name := path.name.removesuffix(".gguf"))
        if (other := _checkpoints.setdefault(key, path)) != path:
            raise UserError(f"two checkpoints named {name}: {other} and {path}; rename one, tables could not tell")
        add("model/local", key, {"name": name, "path": str(path)})
        return f"local/{key}"
    if (match := re.fullmatch(r"(?P<owner>[\w.\-]+)/(?P<name>[\w.\-]+)", choice)) is None:
        return None
    if choice in (known := _by_hub_id()):  # with the limits and the chat format that are known for it
        return known[choice]
    add(f"model/{match['owner']}", match["name"], {"name": match["name"], "hub_id": choice})
    return choice


@cache
def _by_hub_id() -> dict[str, str]:
    models = [path.stem for path in (config_folder() / "model").glob("*.yaml")]
    return {str(hub_id): name for name in models if (hub_id := model_file(name).get("hub_id"))}


def _plain(text: str) -> str:
    """Only characters that need no quotes on Hydra's command line."""
    return re.sub(r"[^\w.\-]+", "_", text, flags=re.ASCII).strip("_")


def run_config(config: DictConfig | Mapping[str, Any], sweep: bool = False) -> RunConfig:
    """Check and type what Hydra composed: see ``run.config.build_config``.

    Raises:
        UserError: any value that is not allowed, in one line.
    """
    given: Any = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
    return build_config(without_names(given), sweep)


def without_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the presets and draft models that its methods name as their fields.

    Raises:
        UserError: no such preset or model.
    """
    entries = config.get("methods")
    if not isinstance(entries, list):
        return dict(config)  # refused by what checks values
    filled = []
    for entry in entries:
        own = dict(entry) if isinstance(entry, Mapping) else {"method": entry}
        draft = own.get("draft")
        if isinstance(own.get("pruning"), str):
            own["pruning"] = plain(PruningSchedule.preset(own["pruning"]))
        if isinstance(draft, str):
            with naming_errors(f"{own['method']}.draft={draft}"):
                own["draft"] = plain(build(ModelSpec, model_node(draft), "model"))
        filled.append(own if len(own) > 1 else entry)
    return {**config, "methods": filled}


def model_node(choice: str) -> dict[str, Any]:
    """Every field of the model that ``model=CHOICE`` stands for.

    Raises:
        UserError: no such model.
    """
    name = _choice("model", choice)
    stored = (config_folder() / "model" / f"{name}.yaml").is_file()
    node = model_file(name) if stored else ConfigStore.instance().load(f"model/{name}.yaml").node
    return node_of(ModelSpec) | cast(dict[str, Any], OmegaConf.to_container(node))
