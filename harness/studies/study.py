"""Run a study: its runs, several at a time, then one report.

Every run has a process of its own. Finished runs are skipped, so a killed study resumes where it stopped.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from harness.config import (
    Config,
    ContrastConfig,
    StudyConfig,
    check_tunable,
)
from harness.finetuning import count_given_cores
from harness.reporting import (
    RunResult,
    compare_runs,
    contrast_runs,
    format_anchorings,
    format_contrasts,
    format_table,
    log_contrast,
    log_report,
    read_runs,
    record_question,
    write_report,
)
from harness.runs import (
    is_finished,
    read_run_config,
    run_folder,
    run_name,
)
from harness.storage import (
    INTERRUPTED,
    InputError,
    hide_passwords,
)
from harness.studies.finished import InputCheck
from harness.studies.grid import expand_grid
from harness.studies.launching import count_gpus, launch, launch_options
from harness.studies.pool import (
    Job,
    choose_layout,
    free_memory,
    run_jobs,
)
from harness.studies.progress_line import StudyProgress
from harness.studies.ray_cluster import run_on_ray
from harness.studies.slurm import follow, submit_missing
from harness.tracking import (
    TrackedRun,
    tracking_uri,
)


def check_files(configs: Iterable[Config]) -> None:
    """Raise an `InputError` that names every local file or folder that is missing."""
    from harness.studies.availability import (
        MISSING,
        list_needs,
    )

    missing = [f"{need.what}: {need.place}" for need in list_needs(configs) if need.state == MISSING]
    if missing:
        found = "; ".join(missing)
        raise InputError(f"missing input files; study not started: {found}; to skip: study.leave_out=[…]")


def send_missing(configs: Iterable[Config]) -> None:
    """Send finished runs that are not in MLflow with all of their rows; one warning if it does not answer."""
    for config in configs:
        tracked = TrackedRun(config, run_folder(config))
        if not tracked.is_sent() and not tracked.forward_late():
            return


def print_contrast(study: Path, runs: Sequence[RunResult], question: ContrastConfig | None) -> None:
    """Print what the study ends in, and log it in MLflow; one line if its finished runs cannot say."""
    if question is None:
        return
    try:
        found = contrast_runs(runs, question)
    except InputError as error:
        print(f"\nno contrast: {error}")
        return
    for contrast in found:
        log_contrast(study, contrast)
    print(f"\n{format_contrasts(found, brief=True)}\n\nsingle regions: in the report")


def run_missing(jobs: Sequence[Job], workers: int | None) -> int:
    """Run what is not finished, on this machine; return the number of runs that failed.

    Parameters
    ----------
    jobs : sequence of Job
    workers : int, optional
        Runs at a time; None: as the machine allows.
    """
    if not jobs:
        return 0
    options, n_gpus = launch_options(), count_gpus()
    layout = choose_layout(len(jobs), count_given_cores(), n_gpus, free_memory(), workers)
    # accelerate as the user has configured it, or all GPUs for one run
    if options is not None and (not options or layout.workers == 1):
        statuses = {job.title: _launch_alone(job) for job in jobs}
    else:
        progress = StudyProgress(len(jobs))
        try:
            statuses = run_jobs("finetune", jobs, layout, progress)
        finally:
            progress.close()
    return _count_failed(statuses)


def _count_failed(statuses: Mapping[str, int]) -> int:
    failed = [title for title, status in statuses.items() if status]
    for title in failed:
        print(f"{title}: failed", file=sys.stderr, flush=True)
    return len(failed)


def run_on_slurm(jobs: Sequence[Job], study: Path, config: StudyConfig, command: str) -> int | None:
    """Run what is not finished as jobs of SLURM; return the number of runs that failed, None: not waited for.

    Parameters
    ----------
    jobs : sequence of Job
    study : Path
        Folder of the study.
    config : StudyConfig
    command : str
        That comes back to these jobs.
    """
    if not jobs:
        return 0
    submitted = submit_missing(jobs, study, config)
    numbers = sorted({one.number.partition("_")[0] for one in submitted})
    n_new = sum(one.is_new for one in submitted)
    n_old = len(submitted) - n_new
    said = [f"{n_new} runs submitted" if n_new else "", f"{n_old} in the queue already" if n_old else ""]
    print(f"SLURM: {', '.join(filter(None, said))}; job {' '.join(numbers)}", flush=True)
    again = f"come back with: {command}\ncancel with: scancel {' '.join(numbers)}"
    if not config.slurm.wait:
        print(again, flush=True)
        return None
    progress = StudyProgress(len(jobs))
    try:
        statuses = _send_as_they_end(follow(submitted, study, config, progress))
    except KeyboardInterrupt:
        progress.close()
        print(f"the runs go on without this command; {again}", file=sys.stderr, flush=True)
        raise
    finally:
        progress.close()
    return _count_failed(statuses)


def run_with_ray(jobs: Sequence[Job], study: Path, config: StudyConfig) -> int:
    """Run what is not finished as tasks of Ray; return the number of runs that failed."""
    if not jobs:
        return 0
    progress = StudyProgress(len(jobs))
    try:
        with closing(run_on_ray(jobs, study, config, progress)) as ends:
            statuses = _send_as_they_end(ends)
    finally:
        progress.close()
    return _count_failed(statuses)


def _send_as_they_end(ends: Iterable[tuple[Job, int]]) -> dict[str, int]:
    """Send each run that has finished to MLflow, which this process alone writes; return exit statuses."""
    statuses, sends = dict[str, int](), True
    for job, status in ends:
        statuses[job.title] = status
        if sends and not status and job.run is not None:
            sends = TrackedRun(read_run_config(job.run), job.run).forward_late()
    return statuses


def _launch_alone(job: Job) -> int:
    print(job.title, flush=True)
    status = launch("finetune", job.arguments)
    if status == INTERRUPTED:
        raise SystemExit(status)  # the run has said so
    return status


def run_study(overrides: list[str]) -> int:
    """Run what is not finished, write the report and print the comparison; return the number of failed runs.

    Parameters
    ----------
    overrides : list of str
        As on the command line.
    """
    runs = list(expand_grid(overrides))
    for _, config in runs:
        check_tunable(config.backbone)
    check_files(config for _, config in runs if not is_finished(run_folder(config)))
    jobs, inputs = [], InputCheck()
    for place, (combination, config) in enumerate(runs, 1):
        title = f"[{place}/{len(runs)}] {run_name(config)}"
        if is_finished(run_folder(config)):
            inputs.check(config)
            print(f"{title}: already finished", flush=True)
        else:
            jobs.append(Job(title, combination, run_folder(config)))
    first = runs[0][1]
    study, launched = run_folder(first).parent, first.study
    if launched.launcher != "local" and first.mlflow.log_model:
        raise InputError(
            f"mlflow.log_model: found true with study.launcher={launched.launcher}, whose runs do not write "
            "to MLflow, expected false"
        )
    if launched.launcher == "slurm":
        command = shlex.join(["palimpsest", "study", *overrides])
        failed_or_none = run_on_slurm(jobs, study, launched, command)
        if failed_or_none is None:
            send_missing(config for _, config in runs if is_finished(run_folder(config)))
            return 0
        failed = failed_or_none
    elif launched.launcher == "ray":
        failed = run_with_ray(jobs, study, launched)
    else:
        failed = run_missing(jobs, launched.workers)
    if not any(is_finished(run_folder(config)) for _, config in runs):
        raise InputError(f"{study}: none of the {len(runs)} runs has finished; no report written")
    question = runs[0][1].study.contrast
    if question is not None:
        record_question(study, question)
    report = write_report(study)
    finished = read_runs(study)
    send_missing(config for _, config in runs if is_finished(run_folder(config)))
    comparison = compare_runs(finished)
    print(format_table(comparison))
    log_report(study, report, comparison)
    print_contrast(study, finished, question)
    anchored = format_anchorings(finished)
    if anchored:
        print(f"\n{anchored}")
    print(f"\nreport: {report}")
    print(f"curves: mlflow ui --backend-store-uri {shlex.quote(hide_passwords(tracking_uri(study.parent)))}")
    return failed
