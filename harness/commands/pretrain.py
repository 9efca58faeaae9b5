"""Train the mini backbones again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.commands.arguments import CommandParser
from harness.storage import (
    InputError,
    user_path,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Read ``key=value`` arguments and train."""
    parser = CommandParser(
        "pretrain",
        "Train a mini backbone again, on scenes of the shapes world, and write its weights.\n"
        "Only needed to change the built-in weights.",
        ("pretrain objective=supervised", "pretrain objective=contrastive"),
    )
    parser.add_argument("settings", nargs="*", metavar="key=value")
    arguments = parser.parse(argv).settings
    for text in arguments:
        if "=" not in text:
            raise InputError(f"{text!r}: expected key=value, such as objective=supervised")
    # after the arguments are checked: torch takes seconds to import
    from omegaconf import OmegaConf
    from pydantic import ValidationError

    from harness.finetuning import (
        PretrainConfig,
        pretrain,
    )

    try:
        given = dict(text.split("=", 1) for text in arguments)
        # paths are meant literally; OmegaConf reads the other values as YAML
        paths = {
            name: user_path(value)
            for name, value in given.items()
            if name in PretrainConfig.model_fields and PretrainConfig.model_fields[name].annotation is Path
        }
        others = [text for text in arguments if text.partition("=")[0] not in paths]
        read: Any = OmegaConf.to_container(OmegaConf.from_dotlist(others))
        config = PretrainConfig.model_validate(read | paths)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}"
        ) from None
    pretrain(config, shlex.join(["palimpsest", "pretrain", *arguments]))
