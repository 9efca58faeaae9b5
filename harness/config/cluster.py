"""Settings of runs that a cluster's scheduler starts: SLURM or Ray."""

from __future__ import annotations

from pydantic import Field

from harness.config.base import Count, Section

OptionValue = str | int | float | bool


class SlurmConfig(Section):
    """What a study asks SLURM for, per run; a run is one task on one node."""

    partition: str | None = Field(None, min_length=1, description="of the cluster; null: its default")
    account: str | None = Field(None, min_length=1, description="to charge; null: your default")
    qos: str | None = Field(None, min_length=1, description="quality of service; null: your default")
    time: Count = Field(
        720, description="time limit, minutes; a run that reaches it is queued again and resumes"
    )
    cpus_per_task: Count = Field(4, description="cores of a run")
    gpus_per_task: int = Field(1, ge=0, description="GPUs of a run, which shares its batches among them")
    memory: float = Field(32.0, gt=0, description="main memory of a run, GiB")
    signal: int = Field(
        120,
        ge=10,
        description="seconds before the time limit, at which a run is told to end; below it in sum",
    )
    timeouts: int = Field(
        20, ge=0, description="how often a run may reach its time limit and be queued again"
    )
    retries: int = Field(
        2,
        ge=0,
        description="how often a run that was killed without a word, as by lack of memory, is queued again "
        "while the study waits",
    )
    array_size: Count = Field(
        1000, description="runs per job array, at most; below the cluster's MaxArraySize, which is 1001"
    )
    period: float = Field(10.0, ge=0.1, description="seconds between two looks at the queue")
    wait: bool = Field(
        True, description="whether the study waits for its runs; false: the same command comes back to them"
    )
    setup: list[str] = Field([], description="lines of shell before the run, such as module load cuda")
    extra: dict[str, OptionValue] = Field(
        {}, description="further options of sbatch, such as {mail-type: END, constraint: a100}"
    )


class RayConfig(Section):
    """What a study asks Ray for, per run; a run is one task."""

    address: str | None = Field(
        None,
        min_length=1,
        description="of a running cluster, or auto for the one that this machine belongs to; null: "
        "$RAY_ADDRESS, else a Ray of its own on this machine",
    )
    cpus_per_task: Count = Field(4, description="cores of a run")
    gpus_per_task: int = Field(1, ge=0, description="GPUs of a run, which shares its batches among them")
    memory: float | None = Field(
        None,
        gt=0,
        description="main memory of a run, GiB, which Ray counts but does not limit; null: not counted",
    )
    resources: dict[str, float] = Field({}, description="further resources of a node, such as {a100: 1}")
    retries: int = Field(
        2, ge=0, description="how often a run whose process or node is lost is started again, and resumes"
    )
