"""Train the mini backbones again."""

from __future__ import annotations

import shlex
import sys

from omegaconf import OmegaConf
from pydantic import ValidationError

from harness.finetuning import (
    PretrainConfig,
    pretrain,
)
from harness.storage import InputError


def main() -> None:
    """Read `name=value` arguments and train."""
    arguments = sys.argv[1:]
    try:
        config = PretrainConfig.model_validate(OmegaConf.to_container(OmegaConf.from_dotlist(arguments)))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}"
        ) from None
    pretrain(config, shlex.join(["accelerate", "launch", "harness/pretrain.py", *arguments]))
