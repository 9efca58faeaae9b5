"""Launching runs: the number of processes, their output, and their exit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from harness.storage.files import read_json
from harness.studies import launching
from harness.studies.launching import (
    count_processes,
    launch,
    launch_options,
)

# the command on a machine with two GPUs, whose processes find none
TWO_GPUS = (
    "import torch\n"
    "torch.cuda.device_count = lambda: 2\n"
    "from accelerate.commands.config import config_args\n"
    "config_args.default_config_file = 'none.yaml'\n"
    "from harness.cli import main\n"
    "main()"
)


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where to write the entry point to launch."""
    monkeypatch.setattr(launching, "PACKAGE_FOLDER", tmp_path)
    monkeypatch.setattr("accelerate.commands.config.config_args.default_config_file", "none.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "finetune.py"


def test_one_process_per_gpu_unless_the_user_has_configured_accelerate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configured = tmp_path / "default_config.yaml"
    monkeypatch.setattr("accelerate.commands.config.config_args.default_config_file", str(configured))
    for n_gpus in (0, 1):
        monkeypatch.setattr(torch.cuda, "device_count", lambda n_gpus=n_gpus: n_gpus)
        assert launch_options() is None
        assert count_processes() == 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    options = launch_options()
    assert options is not None and "--multi_gpu" in options
    assert options[options.index("--num_processes") + 1] == "3"
    assert count_processes() == 3
    configured.write_text("")
    assert launch_options() == []
    assert count_processes() == 1
    configured.write_text("num_processes: 5\nmixed_precision: 'no'\n")
    assert count_processes() == 5


@pytest.mark.parametrize(("ending", "status"), [("sys.exit(0)", 0), ("sys.exit(3)", 3), ("os.abort()", 134)])
def test_arguments_and_exit_status_are_passed_on(
    ending: str, status: int, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = "json.dump([sys.argv[1:], os.environ['OMP_NUM_THREADS']], open('found', 'w'))"
    script.write_text(f"import json, os, sys\n{written}\n{ending}")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert launch("finetune", ["seed=1", "--config-dir", "a b"]) == status
    assert read_json(script.parent / "found") == [["seed=1", "--config-dir", "a b"], "3"]


def test_a_wrong_setting_is_one_line_of_a_launched_run(capfd: pytest.CaptureFixture[str]) -> None:
    assert launch("finetune", ["finetune.lr=-1"]) == 2
    assert capfd.readouterr() == ("", "error: finetune.lr: found -1, expected greater than 0\n")


def test_a_wrong_setting_is_one_line_of_several_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TWO_GPUS, "finetune", "finetune.lr=-1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: finetune.lr: found -1, expected greater than 0\n"


def test_a_run_of_several_processes_shows_what_it_prints_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "finetune.py").write_text(
        "import os, sys\n"
        'sys.stderr.write(f\'progress of {os.environ["LOCAL_RANK"]} of {os.environ["WORLD_SIZE"]}\\n\')'
    )
    here = "from pathlib import Path\nfrom harness.studies import launching\n"
    here += "launching.PACKAGE_FOLDER = Path.cwd()\n"
    command = [sys.executable, "-c", here + TWO_GPUS, "finetune"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "")
    assert sorted(done.stderr.splitlines()) == ["progress of 0 of 2", "progress of 1 of 2"]


def test_interrupting_a_launched_run_ends_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "finetune.py").write_text(
        "import pathlib, time\n"
        "from harness.storage import exit_with_one_line\n"
        "def main():\n"
        "    try:\n"
        "        pathlib.Path('started').touch()\n"
        "        time.sleep(100)\n"
        "    finally:\n"
        "        time.sleep(0.5)\n"  # the snapshot in progress is completed
        "        pathlib.Path('ended').touch()\n"
        "exit_with_one_line(main)"
    )
    code = (
        "import pathlib, sys\n"
        "from harness.studies import launching\n"
        "launching.PACKAGE_FOLDER = pathlib.Path.cwd()\n"
        "launching.launch_options = lambda: None\n"
        "sys.exit(launching.launch('finetune', []))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.time() + 120
    while not (tmp_path / "started").exists():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # to all processes, as a terminal does
    _, message = process.communicate(timeout=60)
    assert (process.returncode, message) == (130, "interrupted\n")
    assert (tmp_path / "ended").exists()
