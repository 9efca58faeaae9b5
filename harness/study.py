"""Entry point: a grid of runs, one `accelerate launch` each; finished ones are skipped; then one report.

    python -m harness.study study=demo
    python -m harness.study study=demo seed=1
    python -m harness.study study=demo --plan          # what it would do and cost; =quick measures no time

More settings on the command line hold for every run. Killed and started again, it goes on where it was.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.comparison import compare_runs, format_table, read_runs
from harness.config import GROUPS, REPOSITORY, group_options, load_config
from harness.errors import InputError, exit_with_one_line, unknown_name
from harness.layout import is_finished, run_folder, run_name
from harness.report import write_report
from harness.sections import Config


def expand_grid(overrides: list[str]) -> Iterator[tuple[list[str], Config]]:
    """Every combination of the study's grid: its overrides and the configuration they resolve to.

    An axis that the command line sets itself is not varied; where the grid sets other settings together with
    that value, they hold. What else the command line sets comes before what the grid sets.

    Raises
    ------
    InputError
        Where a combination is not a valid configuration, or `study.leave_out` names no value or leaves none.
    """
    study = load_config(overrides).study
    given = dict(_name_and_value(text) for text in overrides)
    axes = [
        _choices(axis, values, given) for axis, values in _left_in(study.grid, study.leave_out, given).items()
    ]
    for parts in itertools.product(*axes):
        combination = [*overrides, *itertools.chain.from_iterable(parts)]
        try:
            yield combination, load_config(combination)
        except InputError as error:
            raise InputError(f"{error}{_advice(overrides, parts)}") from None


def _advice(overrides: list[str], parts: Iterable[list[str]]) -> str:
    """Which value of the grid it is that cannot be resolved, and how to do without."""
    for part in filter(None, parts):
        try:
            load_config([*overrides, *part])
        except InputError:
            name, value = _name_and_value(part[0])
            named = name in GROUPS and value in group_options(name)
            file = f"; configs/{name}/{value}.yaml may say more" if named else ""
            return f"{file}; study.leave_out=[{value}] does without"
    return ""


def _name_and_value(override: str) -> tuple[str, str]:
    name, _, value = override.partition("=")
    return name.lstrip("+"), value


def _as_text(value: Any) -> str:
    """A value as an override gives it."""
    return value if isinstance(value, str) else json.dumps(value)


def _bare(text: str) -> str:
    return re.sub(r"[\s\"']", "", text)


def _value_on(axis: str, value: Any) -> str:
    """What a value of the grid is on its axis, also where others are set together with it."""
    return _as_text(value[axis] if isinstance(value, dict) else value)


def _left_in(grid: dict[str, list[Any]], leave_out: list[Any], given: dict[str, str]) -> dict[str, list[Any]]:
    """The grid without the values to leave out."""
    unwanted = {_as_text(value) for value in leave_out}
    known = {_value_on(axis, value) for axis, values in grid.items() for value in values}
    for text in sorted(unwanted - known):
        raise unknown_name("value of the grid in study.leave_out", text, known)
    left = {
        axis: [value for value in values if _value_on(axis, value) not in unwanted]
        for axis, values in grid.items()
    }
    for axis, values in left.items():
        if not values and axis not in given:
            raise InputError(
                f"study.leave_out: found all values of {axis}, accepted: fewer, or {axis}=… itself"
            )
    return left


def _choices(axis: str, values: list[Any], given: dict[str, str]) -> list[list[str]]:
    """Overrides of every value of an axis: what the command line sets itself is not among them."""
    if axis in given:
        # a list may be spelled with blanks and quotes, or without
        wanted = _bare(given[axis])
        values = [value for value in values if _bare(_value_on(axis, value)) == wanted][:1] or [{}]
    together = [value if isinstance(value, dict) else {axis: value} for value in values]
    return [
        [f"{name}={_as_text(value)}" for name, value in settings.items() if name not in given]
        for settings in together
    ]


def check_files(configs: Iterable[Config]) -> None:
    """Raise an `InputError` that names every local file or folder of the runs that is not there."""
    from harness.availability import MISSING, list_needs

    missing = [f"{need.what}: {need.place}" for need in list_needs(configs) if need.state == MISSING]
    if missing:
        found = "; ".join(missing)
        raise InputError(f"no such file, so nothing was begun: {found}; study.leave_out=[…] does without")


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


def main() -> None:
    """Run, or with --plan only describe, the study that the command line names."""
    flags = [text for text in sys.argv[1:] if text.startswith("-")]
    overrides = [text for text in sys.argv[1:] if not text.startswith("-")]
    for flag in flags:
        if flag not in ("--plan", "--plan=quick"):
            raise InputError(f"option {flag!r}: accepted are --plan and --plan=quick")
    if flags:
        from harness.plan import print_plan

        print_plan([config for _, config in expand_grid(overrides)], measure="--plan=quick" not in flags)
    elif run_study(overrides):
        raise SystemExit(1)


if __name__ == "__main__":
    exit_with_one_line(main)
