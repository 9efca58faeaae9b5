"""Argument parsers of the commands: errors of one line, help with examples, overrides."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from typing import NoReturn

from harness.storage import (
    InputError,
    unknown_name,
    user_path,
)

GROUPS = {
    "backbone": "pretrained network",
    "task": "images and labels to fine-tune on",
    "method": "fine-tuning method",
    "brain": "responses of visual cortex",
    "mapping": "encoding model from network to brain",
    "study": "grid of runs, with the settings they share",
}
COLUMN, WIDTH = 28, 100


class CommandParser(argparse.ArgumentParser):
    """The parser of a command; what it cannot parse is an `InputError`."""

    def __init__(self, command: str, description: str, examples: Sequence[str] = ()) -> None:
        lines = "\n".join(f"  palimpsest {example}" for example in examples)
        super().__init__(
            prog=f"palimpsest {command}",
            description=description,
            epilog=f"examples:\n{lines}" if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise an `InputError` instead of printing the usage."""
        message = message.removeprefix("argument ")
        raise InputError(f"{self.prog}: {message}; see {self.prog} --help")

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse arguments, None: those of the process. Options may stand anywhere among them."""
        found, rest = self.parse_known_intermixed_args(argv)
        if rest:
            options = [name for action in self._actions for name in action.option_strings if name[1] == "-"]
            raise unknown_name("option", rest[0].partition("=")[0], options)
        return found


class OverrideParser(CommandParser):
    """The parser of a command that takes overrides of a configuration, ``key=value``.

    Parameters
    ----------
    command, description, examples
        As of `CommandParser`.
    settings : sequence of str
        Names of settings to show in the help.
    """

    def __init__(
        self, command: str, description: str, examples: Sequence[str], settings: Sequence[str]
    ) -> None:
        super().__init__(command, description, examples)
        self.settings = settings
        self.add_argument(
            "overrides",
            nargs="*",
            metavar="key=value",
            help="option of a group (backbone=mini_random) or setting (finetune.lr=1e-4)",
        )
        self.add_argument(
            "--config-dir",
            action="append",
            default=[],
            type=user_path,
            metavar="DIR",
            help="folder of your own options, such as DIR/backbone/mine.yaml; may be repeated. "
            "PALIMPSEST_CONFIGS lists such folders too",
        )

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse arguments and add the folders of configurations they name."""
        from harness.config import add_config_folder

        found = super().parse(argv)
        for folder in found.config_dir:
            add_config_folder(folder)
        return found

    def format_help(self) -> str:
        """Put groups and settings between the options and the examples."""
        from harness.config import describe_settings

        known = {setting.name: setting for setting in describe_settings()}
        lines = ["groups (palimpsest config --list GROUP prints the options):"]
        lines += [_two_columns(group, text) for group, text in GROUPS.items()]
        lines += ["", "most used settings (palimpsest config --settings prints all):"]
        for name in self.settings:
            setting = known[name]
            default = "…" if setting.default is None else setting.default
            lines.append(_two_columns(f"{name}={default}", setting.description))
        before, epilog, after = super().format_help().partition(self.epilog or "examples:")
        return before + "\n".join(lines) + "\n\n" + epilog + after


def _two_columns(left: str, right: str) -> str:
    """Format a name and its description, wrapped into the second column."""
    indent = " " * COLUMN
    filled = textwrap.fill(right, WIDTH, initial_indent=indent, subsequent_indent=indent)
    head = f"  {left}"
    # a long name has a line of its own
    return (
        f"{head:{COLUMN}}{filled.lstrip()}".rstrip() if len(head) < COLUMN else f"{head}\n{filled}".rstrip()
    )
