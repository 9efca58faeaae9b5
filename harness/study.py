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
from harness.config import REPOSITORY, Config, load_config
from harness.errors import InputError, exit_with_one_line
from harness.layout import is_finished, run_folder, run_name
from harness.report import write_report


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


def launch_command(overrides: list[str]) -> list[str]:
    """Command of one run: by the user's accelerate configuration if there is one, else one process a GPU."""
    # importing these takes seconds, and a finished study launches nothing
    import torch
    from accelerate.commands.config.config_args import default_config_file

    command = [sys.executable, "-m", "accelerate.commands.launch"]
    if not Path(default_config_file).exists():
        # said explicitly, because accelerate warns of every default it takes
        n_processes = max(1, torch.cuda.device_count())
        command += ["--num_processes", str(n_processes), "--num_machines", "1", "--mixed_precision", "no"]
        command += ["--dynamo_backend", "no", *(["--multi_gpu"] if n_processes > 1 else [])]
    return [*command, str(REPOSITORY / "harness" / "finetune.py"), *overrides]


def run_study(overrides: list[str]) -> int:
    """Run what is not finished, write the report and print the comparison; returns how many runs failed.

    Parameters
    ----------
    overrides : list of str
        As on the command line.
    """
    runs = list(expand_grid(overrides))
    environment = {**os.environ}
    # accelerate launch would give a single process one thread
    environment.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    failed = 0
    for place, (combination, config) in enumerate(runs, 1):
        folder = run_folder(config)
        if is_finished(folder):
            print(f"[{place}/{len(runs)}] {run_name(config)}: finished before", flush=True)
            continue
        print(f"[{place}/{len(runs)}] {run_name(config)}", flush=True)
        if subprocess.run(launch_command(combination), env=environment, check=False).returncode:
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
