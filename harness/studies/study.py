"""Entry point: a grid of runs, one `accelerate launch` each; finished ones are skipped; then one report.

    python -m harness.study study=demo
    python -m harness.study study=demo seed=1
    python -m harness.study study=demo --plan          # what it would do and cost; =quick measures no time

More settings on the command line hold for every run. Killed and started again, it goes on where it was.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from harness.config import Config
from harness.reporting import (
    compare_runs,
    format_table,
    read_runs,
    write_report,
)
from harness.runs import (
    is_finished,
    run_folder,
    run_name,
)
from harness.storage import InputError
from harness.studies.grid import expand_grid
from harness.studies.launch import launch


def check_files(configs: Iterable[Config]) -> None:
    """Raise an `InputError` that names every local file or folder of the runs that is not there."""
    from harness.studies.availability import (
        MISSING,
        list_needs,
    )

    missing = [f"{need.what}: {need.place}" for need in list_needs(configs) if need.state == MISSING]
    if missing:
        found = "; ".join(missing)
        raise InputError(f"no such file, so nothing was begun: {found}; study.leave_out=[…] does without")


def run_study(overrides: list[str]) -> int:
    """Run what is not finished, write the report and print the comparison; returns how many runs failed.

    Parameters
    ----------
    overrides : list of str
        As on the command line.
    """
    runs = list(expand_grid(overrides))
    check_files(config for _, config in runs if not is_finished(run_folder(config)))
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
