"""Entry point: a grid of runs, one `accelerate launch` each; finished ones are skipped; then one report.

    python -m harness.study study=demo
    python -m harness.study study=demo seed=1

More settings on the command line hold for every run. Killed and started again, it goes on where it was.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.comparison import compare_runs, format_table, read_runs
from harness.config import REPOSITORY, load_config
from harness.errors import InputError, exit_with_one_line
from harness.layout import is_finished, run_folder, run_name
from harness.report import write_report
from harness.sections import Config


def expand_grid(overrides: list[str]) -> Iterator[tuple[list[str], Config]]:
    """Every combination of the study's grid: its overrides and the configuration they resolve to.

    An axis that the command line sets itself is not varied.

    Raises
    ------
    InputError
        Where a combination is not a valid configuration.
    """
    grid = load_config(overrides).study.grid
    given = {text.split("=", 1)[0].lstrip("+") for text in overrides}
    axes = [[f"{axis}={value}" for value in values] for axis, values in grid.items() if axis not in given]
    for chosen in itertools.product(*axes):
        combination = [*overrides, *chosen]
        yield combination, load_config(combination)


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


def run_study(overrides: list[str]) -> int:
    """Run what is not finished, write the report and print the comparison; returns how many runs failed.

    Parameters
    ----------
    overrides : list of str
        As on the command line.
    """
    runs = list(expand_grid(overrides))
    # accelerate launch would give a single process one thread
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    failed = 0
    for place, (combination, config) in enumerate(runs, 1):
        folder = run_folder(config)
        if is_finished(folder):
            print(f"[{place}/{len(runs)}] {run_name(config)}: finished before", flush=True)
            continue
        print(f"[{place}/{len(runs)}] {run_name(config)}", flush=True)
        if not launch(combination):
            print(
                f"[{place}/{len(runs)}] {run_name(config)}: failed; the others go on",
                file=sys.stderr,
                flush=True,
            )
            failed += 1
    study = run_folder(runs[0][1]).parent
    if not any(is_finished(run_folder(config)) for _, config in runs):
        raise InputError(f"{study}: none of the {len(runs)} runs has finished, so there is nothing to report")
    report = write_report(study)
    print(format_table(compare_runs(read_runs(study))))
    print(f"\nreport: {report}")
    print(f"curves: mlflow ui --backend-store-uri sqlite:///{study.parent / 'mlflow.db'}")
    return failed


def main() -> None:
    """Run the study that the command line names."""
    if run_study(sys.argv[1:]):
        raise SystemExit(1)


if __name__ == "__main__":
    exit_with_one_line(main)
