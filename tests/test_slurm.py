"""Runs as jobs of SLURM: one array, ends, jobs that are queued again, and calls that come back."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from made_jobs import ENTRY, Heard, make_jobs
from made_slurm import write_commands

from harness.commands import finetune as command
from harness.config import SlurmConfig, StudyConfig, load_config
from harness.storage.errors import InputError
from harness.storage.files import read_json, write_json
from harness.storage.launchers import SEND_LATER
from harness.studies import slurm, study
from harness.studies.grid import expand_grid
from harness.studies.pool import Job
from harness.studies.slurm_run import SlurmRun


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stand-in for SLURM on the path; return the folder of its jobs."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    monkeypatch.setenv("MADE_SLURM", str(folder))
    monkeypatch.setenv("PATH", os.pathsep.join([str(write_commands(tmp_path / "bin")), os.environ["PATH"]]))
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "entry.py").write_text(ENTRY)
    return folder


CONFIG = StudyConfig(
    name="tiny",
    launcher="slurm",
    slurm=SlurmConfig(
        partition="gpu", cpus_per_task=4, gpus_per_task=2, period=0.1, retries=1, extra={"mail-type": "END"}
    ),
)


def submit(jobs: Sequence[Job], config: StudyConfig = CONFIG) -> list[slurm.Submitted]:
    return slurm.submit_missing(jobs, Path("runs/tiny").absolute(), config, [sys.executable, "entry.py"])


def follow(submitted: Sequence[slurm.Submitted]) -> tuple[dict[str, int], Heard]:
    heard = Heard()
    ended = slurm.follow(submitted, Path("runs/tiny").absolute(), CONFIG, heard)
    return {job.arguments[0]: status for job, status in ended}, heard


def test_an_array_runs_to_its_end_whatever_happens_to_its_jobs(made: Path) -> None:
    names = ("good", "bad", "dies", "orphaned", "preempted", "warned")
    submitted = submit(make_jobs(*names))
    assert [one.number for one in submitted] == [f"1_{place}" for place in range(6)]
    assert all(one.is_new for one in submitted)
    statuses, heard = follow(submitted)
    assert statuses == dict.fromkeys(names, 0) | {"bad": 1}, (made / "errors").read_text()
    assert sorted((made / "requeued").read_text().split()) == ["1_2", "1_3", "1_4", "1_5"]
    assert ("bad", "error: seed: found -1, expected 0 or more") in heard.told
    # once per start
    assert heard.told.count(("good", "working on good")) == 1
    assert heard.told.count(("warned", "working on warned")) == 2
    for name in names:
        assert heard.told.index((name, "began")) < heard.told.index((name, f"working on {name}"))
    script = (made / "1.sh").read_text()
    for option in (
        "array=0-5%6",
        "partition=gpu",
        "cpus-per-task=4",
        "gpus-per-node=2",
        "mem=32768M",
        "requeue",
    ):
        assert f"#SBATCH --{option}\n" in script
    for option in ("mail-type=END", "signal=USR2@120", "time=720", "job-name=palimpsest-tiny"):
        assert f"#SBATCH --{option}\n" in script
    assert "--cpus-per-task=4" in script.splitlines()[-1] and "wckey" not in script
    seen = read_json(Path("runs/tiny/good/begun"))
    assert (seen["OMP_NUM_THREADS"], seen[SEND_LATER]) == ("2", "1")
    assert ("good", "fine-tuning") in heard.told


def test_a_call_comes_back_to_what_is_in_the_queue_and_submits_what_failed(made: Path) -> None:
    jobs = make_jobs("waits", "bad")
    first = submit(jobs)
    assert follow(first[1:])[0] == {"bad": 1}
    again = submit(jobs, CONFIG.model_copy(update={"workers": 1}))
    # a job of its own, since one run is missing
    assert [(one.number, one.is_new) for one in again] == [("1_0", False), ("2", True)]
    assert not Path("runs/tiny/.slurm/bad/ended.json").exists() or follow(again[1:])[0] == {"bad": 1}
    Path("runs/tiny/waits/go").touch()
    statuses, heard = follow(again[:1])
    assert statuses == {"waits": 0}
    # what it printed before this call is not repeated
    assert ("waits", "working on waits") not in heard.told


def test_a_run_that_dies_again_and_again_has_failed(made: Path) -> None:
    (job,) = make_jobs("dies")
    forever = Job(job.title, ["-c", "import os; os.kill(os.getpid(), 9)"], job.run)
    submitted = slurm.submit_missing([forever], Path("runs/tiny").absolute(), CONFIG, [sys.executable])
    assert submitted[0].number == "1" and follow(submitted)[0] == {"-c": 137}
    assert (made / "requeued").read_text() == "1\n"


def test_a_job_that_is_cancelled_before_it_begins_is_not_queued_again(made: Path) -> None:
    job = slurm.Submitted(make_jobs("good")[0], "7_0", True, 0)
    statuses, heard = follow([job])
    assert statuses == {"good": 143} and not (made / "requeued").exists()
    assert ("good", "job 7_0 was cancelled before it began") in heard.told


def test_arrays_are_as_long_as_the_cluster_allows(made: Path) -> None:
    small = CONFIG.model_copy(update={"slurm": CONFIG.slurm.model_copy(update={"array_size": 2})})
    submitted = submit(make_jobs("good", "better", "best"), small)
    assert [one.number for one in submitted] == ["1_0", "1_1", "2"]
    assert follow(submitted)[0] == {"good": 0, "better": 0, "best": 0}


def test_what_slurm_refuses_is_one_line(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (made / "refuse").touch()
    with pytest.raises(
        InputError,
        match=r"^study.slurm: invalid partition specified: none; Batch job submission failed: Invalid part",
    ):
        submit(make_jobs("good"))
    assert capfd.readouterr().err == ""
    # nothing is taken for submitted
    (made / "refuse").unlink()
    assert submit(make_jobs("good"))[0].is_new


def test_missing_programs_are_one_line(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "submitit", None)
        with pytest.raises(InputError, match=r"needs submitit: pip install 'palimpsest\[slurm\]'$"):
            submit(make_jobs("good"))
    monkeypatch.setenv("PATH", str(made))
    with pytest.raises(
        InputError, match="found slurm without sbatch, squeue, scontrol, srun on this machine"
    ):
        submit(make_jobs("good"))


def test_a_checkpoint_has_no_process_of_its_own(tmp_path: Path) -> None:
    run = SlurmRun(("true",), {}, tmp_path, tmp_path)
    delayed = run.checkpoint()
    assert delayed.function == run and delayed.function is not run


def overrides(tmp_path: Path, *more: str) -> list[str]:
    return ["study=demo", "study.launcher=slurm", f"runs_dir={tmp_path}", *more]


def test_a_study_waits_for_its_jobs_and_sends_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [study.run_folder(config) for _, config in expand_grid(overrides(tmp_path))]

    def submit(jobs: Sequence[Job], place: Path, config: StudyConfig) -> list[slurm.Submitted]:
        assert place == folders[0].parent and [job.run for job in jobs] == folders
        return [slurm.Submitted(job, f"12_{number}", number < 2, 0) for number, job in enumerate(jobs)]

    def end(submitted: Sequence[slurm.Submitted], *_: object) -> list[tuple[Job, int]]:
        for folder in folders[:2]:
            write_json(folder / "finished.json", {"steps": [0]})
        return [(one.job, int(one.job.run == folders[2])) for one in submitted]

    sent: list[str] = []

    class Sender:
        def __init__(self, config: object, folder: Path) -> None:
            self.name = folder.name

        def forward_late(self) -> bool:
            sent.append(self.name)
            return True

        def is_sent(self) -> bool:
            return self.name in sent

    monkeypatch.setattr(study, "submit_missing", submit)
    monkeypatch.setattr(study, "follow", end)
    monkeypatch.setattr(study, "TrackedRun", Sender)
    monkeypatch.setattr(study, "read_run_config", lambda folder: None)
    monkeypatch.setattr(study, "write_report", lambda folder: folder / "report.html")
    monkeypatch.setattr(study, "read_runs", lambda folder: [])
    monkeypatch.setattr(study, "compare_runs", lambda runs: runs)
    monkeypatch.setattr(study, "format_table", lambda frame: "the table")
    monkeypatch.setattr(study, "log_report", lambda *_: None)
    monkeypatch.setattr(study, "print_contrast", lambda *_: None)
    again = overrides(tmp_path, "study.slurm.wait=false")
    assert study.run_study(again) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "SLURM: 2 runs submitted, 1 in the queue already; job 12"
    assert f"come back with: palimpsest study {' '.join(again)}\ncancel with: scancel 12\n" in said.out
    assert "the table" not in said.out and sent == []
    assert study.run_study(overrides(tmp_path)) == 1
    said = capsys.readouterr()
    assert "the table" in said.out and "[3/3]" in said.err and said.err.count(": failed") == 1
    # each once, as it ends
    assert sent == [folder.name for folder in folders[:2]]
    with pytest.raises(InputError, match=r"log_model: found true with study.launcher=slurm"):
        study.run_study(overrides(tmp_path, "mlflow.log_model=true"))


@pytest.mark.parametrize("later", [False, True])
def test_a_job_leaves_mlflow_to_the_study(
    later: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sends: list[str] = []

    class Sender:
        def __init__(self, config: object, folder: Path) -> None: ...

        def __enter__(self) -> Sender:
            sends.append("rows")
            return self

        def __exit__(self, *_: object) -> None: ...

    class Inputs:
        tasks = backbone = None

    for name, result in {
        "load_inputs": Inputs(),
        "bind_to_plan": {},
        "describe_run": {"fingerprints": {}},
        "begin_record": None,
        "finish_record": None,
    }.items():
        monkeypatch.setattr(f"harness.runs.{name}", lambda *_, result=result: result)
    for name in ("adopt_training", "finetune", "record_training"):
        monkeypatch.setattr(f"harness.finetuning.{name}", lambda *_: None)
    monkeypatch.setattr("harness.finetuning.fingerprint_method", lambda method: {})
    monkeypatch.setattr("harness.tracking.track", lambda *_: None)
    monkeypatch.setattr("harness.tracking.TrackedRun", Sender)
    if later:
        monkeypatch.setenv(SEND_LATER, "1")
    command.run(load_config(["backbone=mini_random", "task=digits", f"runs_dir={tmp_path}"]))
    assert sends == ([] if later else ["rows"])
