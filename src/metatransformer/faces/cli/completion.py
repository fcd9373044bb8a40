"""``metatransformer completion SHELL``: a script that completes commands, options, names and files, made by shtab.

It is made of the commands' own parser: an argument is completed by what its metavar says it is.
"""

from argparse import Namespace
from typing import Any

import shtab

from metatransformer.faces.cli.main import _parser
from metatransformer.modalities import modality_names
from metatransformer.tasks import task_names
from metatransformer.trunk.catalog import KNOWN

FILES = {"DATA", "RUN", "PATH", "FILE", "DIR", "INDEX", "PAIRS", "TABLE", "MODEL", "R"}
TUNES = ("head", "tokens", "ends", "norm", "lora", "all")


def completion(options: Namespace) -> tuple[None, int]:
    """Prints the script; standard output holds nothing else, so that the shell can read it."""
    parser = _parser()
    (commands,) = [action for action in parser._actions if action.choices]
    for command in dict(commands.choices or {}).values():
        for action in command._actions:
            _say_what_it_is(action)
    print(shtab.complete(parser, shell=options.shell))
    return None, 0


def _say_what_it_is(action: Any) -> None:
    names = {"--modality": modality_names(), "--tune": TUNES, "--device": ("auto", "cpu", "cuda", "mps")}
    flag = next(iter(action.option_strings), "")
    if action.metavar == "E":
        action.complete = _words("encoders", [*KNOWN])
    elif action.metavar in FILES:
        action.complete = shtab.FILE
    elif flag in names:
        action.choices = names[flag]
    elif flag == "--task" and not action.metavar:
        action.choices = task_names()


def _words(name: str, words: list[str]) -> dict[str, Any]:
    """Returns how words or files are completed in each shell."""
    listed, function = " ".join(words), f"_metatransformer_{name}"
    bash = f'{function}() {{\n  compgen -W "{listed}" -- "$1"\n  compgen -f -- "$1"\n}}\n'
    zsh = f"{function}() {{\n  _alternative 'names:name:({listed})' 'files:file:_files'\n}}\n"
    fish = f"{listed} (__fish_complete_path (commandline -ct))"
    return {"bash": function, "zsh": function, "fish": fish, "preamble": {"bash": bash, "zsh": zsh}}
