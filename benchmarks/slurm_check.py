"""A study on a real SLURM whose runs are disturbed: its results are those of the local launcher, bit for bit.

    python benchmarks/slurm_check.py --output benchmarks/results/slurm_check.json

It starts a SLURM of one node (`slurm_cluster.py`; Debian's slurm-wlm and munge, as root), and runs a study of
six tiny runs as one job array. In the middle of its fine-tuning,

- the process of run 0 that SLURM has started, and the fine-tuning of run 1, get kill −9;
- run 2 is queued again by `scontrol requeue`, as by a preemption without grace;
- run 3 gets SIGUSR2, which SLURM sends when a job's time is nearly up;
- run 4 gets SIGTERM, with which a preemption with grace begins;
- run 5 is left alone.

A second study on two runs is submitted without waiting, submitted again while they are in the queue, and
taken up by a third call. The same studies then run on the local launcher.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from slurm_cluster import running_slurm
from tiny_study import (
    LIMIT,
    Study,
    compare_with_local,
    count_in_store,
    run_check,
    wait_for_checkpoint,
)

ON_SLURM = [
    "study.launcher=slurm",
    "study.slurm.cpus_per_task=1",
    "study.slurm.gpus_per_task=0",
    "study.slurm.memory=0.5",
    "study.slurm.time=60",
    "study.slurm.period=1",
]
DISTURBANCES = {
    0: "kill -9 of the job's process",
    1: "kill -9 of the fine-tuning",
    2: "scontrol requeue",
    3: "SIGUSR2, as before the time limit",
    4: "SIGTERM, as of a preemption with grace",
}


def slurm(environment: dict[str, str], *command: str) -> str:
    """Run a command of SLURM."""
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def disturb(
    study: Study, process: subprocess.Popen[bytes], seed: int, environment: dict[str, str]
) -> dict[str, Any]:
    """Disturb a run in the middle of its fine-tuning; return how far it was."""
    run, step = wait_for_checkpoint(study, process, seed)
    number = json.loads((study.runs / study.name / ".slurm/jobs.json").read_text("utf-8"))[run.name]
    if seed < 2:
        wanted = "harness/cli.py" if seed else "submitit.core._submit"
        of_job = [process for process in psutil.process_iter() if _belongs(process, number)]
        victims = [one for one in of_job if _runs(one, wanted) and not _runs(one, "srun")]
        for one in victims:
            one.send_signal(signal.SIGKILL)
        assert victims, f"job {number} has no process of {wanted}"
    elif seed == 2:
        slurm(environment, "scontrol", "requeue", number)
    else:
        # the job is queued again while scancel still waits for an answer, so its status says nothing
        command = ["scancel", f"--signal={'USR2' if seed == 3 else 'TERM'}", number]
        subprocess.run(command, env=os.environ | environment, capture_output=True, check=False)
    return {
        "seed": seed,
        "disturbance": DISTURBANCES[seed],
        "at step": step,
    }


def _belongs(process: psutil.Process, number: str) -> bool:
    try:
        environment = process.environ()
    except psutil.Error:
        return False
    found = [environment.get(name) for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")]
    return found == number.split("_")


def _runs(process: psutil.Process, what: str) -> bool:
    try:
        return any(what in part for part in process.cmdline()[:4])
    except psutil.Error:
        return False


def read_restarts(study: Study, environment: dict[str, str]) -> dict[int, int]:
    """Return how often SLURM has begun each job again."""
    numbers = json.loads((study.runs / study.name / ".slurm/jobs.json").read_text("utf-8"))
    found = {}
    for seed in study.seeds:
        run = study.run(seed)
        assert run is not None
        said = slurm(environment, "scontrol", "show", "job", numbers[run.name])
        found[seed] = int(said.partition("Restarts=")[2].split()[0])
    return found


def check(work: Path) -> dict[str, Any]:
    """Run both studies on SLURM and here; return what was seen."""
    began = time.monotonic()
    cpus = max(2, os.cpu_count() or 2)
    with running_slurm(work / "slurm", cpus) as environment:
        study = Study(work / "on_slurm", "disturbed", list(range(6)), environment)
        process = study.start(*ON_SLURM)
        try:
            # side by side: SLURM's commands may take longer than a run
            with ThreadPoolExecutor(len(DISTURBANCES)) as threads:
                disturbed = list(
                    threads.map(lambda seed: disturb(study, process, seed, environment), DISTURBANCES)
                )
        except BaseException:
            process.kill()
            raise
        assert process.wait(LIMIT) == 0, study.said()[-3000:]
        restarts = read_restarts(study, environment)
        said = study.said()
        seconds = time.monotonic() - began

        later = Study(work / "on_slurm", "later", [10, 11], environment)
        first = later.call(*ON_SLURM, "study.slurm.wait=false")
        again = later.call(*ON_SLURM, "study.slurm.wait=false")
        last = later.call(*ON_SLURM)
        stores = count_in_store(study.runs)
        version = slurm(environment, "sinfo", "--version")
    compared = compare_with_local(work, study, later)
    return {
        "slurm": version,
        **compared,
        "disturbed": [{**one, "restarts": restarts[one["seed"]]} for one in disturbed],
        "restarts of the undisturbed run": restarts[5],
        "job arrays of the disturbed study": said.count("runs submitted; job"),
        "submitted, submitted again, taken up": [
            line for text in (first, again, last) for line in text.splitlines() if line.startswith("SLURM:")
        ],
        "runs in MLflow": stores,
        "seconds of the disturbed study": round(seconds, 1),
    }


if __name__ == "__main__":
    run_check(__doc__, "slurm_check", check)
