"""Launch a run with `accelerate launch`."""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness.config import REPOSITORY


def launch_options() -> list[str]:
    """Options of `accelerate launch`: one process a GPU, unless the user has an accelerate configuration."""
    import torch
    from accelerate.commands.config.config_args import default_config_file

    if Path(default_config_file).exists():
        return []
    # said explicitly, because accelerate warns of every default it takes
    n_processes = max(1, torch.cuda.device_count())
    options = ["--num_processes", str(n_processes), "--num_machines", "1", "--mixed_precision", "no"]
    return [*options, "--dynamo_backend", "no", *(["--multi_gpu"] if n_processes > 1 else [])]


def launch(overrides: list[str]) -> bool:
    """`accelerate launch harness/finetune.py` of one run; whether it came to its end.

    The launcher runs in this process and starts the run in others: importing it would cost every run seconds.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    script = str(REPOSITORY / "harness" / "finetune.py")
    try:
        launch_command(launch_command_parser().parse_args([*launch_options(), script, *overrides]))
    except (subprocess.CalledProcessError, ChildFailedError):
        return False
    return True
