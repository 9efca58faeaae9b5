"""Launching runs: the number of processes, their output, and their exit."""

from __future__ import annotations

import os
import runpy
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
    "from pathlib import Path\n"
    "from harness.studies import launching\n"
    "launching.accelerate_settings = lambda: Path('none.yaml')\n"
    "from harness.cli import main\n"
    "main()"
)


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where to write the entry point to launch."""
    monkeypatch.setattr(launching, "PACKAGE_FOLDER", tmp_path)
    monkeypatch.setattr("accelerate.commands.config.config_args.default_config_file", "none.yaml")
    monkeypatch.setattr(launching, "accelerate_settings", lambda: tmp_path / "none.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "finetune.py"


def test_one_process_per_gpu_unless_the_user_has_configured_accelerate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    configured = tmp_path / "accelerate" / "default_config.yaml"
    configured.parent.mkdir()
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


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("variable", ["HF_HOME", "XDG_CACHE_HOME", None])
def test_the_settings_of_accelerate_lie_where_it_finds_them(
    variable: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, str(tmp_path))
    theirs = runpy.run_module("accelerate.commands.config.config_args")["default_config_file"]
    assert launching.accelerate_settings() == Path(theirs)


def test_gpus_are_counted_without_torch_where_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert launching.count_gpus() == 2
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(launching, "_has_driver", lambda: False)
    assert launching.count_gpus() == 0 and "torch" not in sys.modules


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


# sleeps until it is told to end, and then needs half a second
SLEEPER = (
    "import pathlib, time\n"
    "from harness.storage import exit_with_one_line\n"
    "def main():\n"
    "    try:\n"
    "        pathlib.Path('started').touch()\n"
    "        time.sleep(100)\n"
    "    finally:\n"
    "        time.sleep(0.5)\n"
    "        pathlib.Path('ended').touch()\n"
    "exit_with_one_line(main)"
)
LAUNCH = (
    "import pathlib, sys\n"
    "from harness.studies import launching\n"
    "launching.PACKAGE_FOLDER = pathlib.Path.cwd()\n"
    "launching.launch_options = lambda: None\n"
    "sys.exit(launching.launch('finetune', []))"
)
ACCELERATE = ["-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no", "finetune.py"]


def start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    """Start a launcher of `SLEEPER`, and wait until the sleeper sleeps."""
    (folder / "finetune.py").write_text(SLEEPER)
    # ignored by all that a shell starts in the background, these tests perhaps included
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, *command], cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(folder / "started", process)
    return process


def wait_for(path: Path, process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.time() + 120
    while not path.exists():
        assert (process is None or process.poll() is None) and time.time() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("own", [False, True])
def test_sigterm_to_a_launch_ends_its_run_in_order(own: bool, tmp_path: Path) -> None:
    command = ["finetune.py"] if own else ["-c", LAUNCH]
    process = start(command, tmp_path)
    process.terminate()
    _, message = process.communicate(timeout=60)
    assert (process.returncode, message) == (143, "terminated\n")
    assert (tmp_path / "ended").exists()  # before the launch


def test_a_run_ends_in_order_when_its_launcher_is_killed(tmp_path: Path) -> None:
    process = start(["-c", LAUNCH], tmp_path)
    process.kill()
    _, message = process.communicate(timeout=60)  # until the run, too, has closed its standard error
    assert (process.returncode, message) == (-signal.SIGKILL, "terminated\n")
    assert (tmp_path / "ended").exists()


def test_a_run_does_not_end_with_a_shell(tmp_path: Path) -> None:
    shell = f"{sys.executable} finetune.py & while test ! -e started; do sleep 0.01; done; echo $! > number"
    (tmp_path / "finetune.py").write_text(SLEEPER)
    subprocess.run(["bash", "-c", shell], cwd=tmp_path, check=True, timeout=120)
    run = int((tmp_path / "number").read_text())
    time.sleep(1.5)  # three looks at a launcher
    os.kill(run, signal.SIGKILL)  # fails if it has ended
    assert not (tmp_path / "ended").exists()


def test_a_wrong_name_is_one_line_under_accelerate(tmp_path: Path) -> None:
    (tmp_path / "finetune.py").write_text(
        "from harness.storage import InputError, exit_with_one_line\n"
        "def main():\n"
        "    raise InputError('backbone: found nope')\n"
        "exit_with_one_line(main)"
    )
    done = subprocess.run(
        [sys.executable, *ACCELERATE], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("", "error: backbone: found nope\n")
    assert done.returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGINT, "interrupted\n"), (signal.SIGTERM, "terminated\n")]
)
def test_signals_are_one_line_under_accelerate(number: int, word: str, tmp_path: Path) -> None:
    process = start(ACCELERATE, tmp_path)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # to all processes, as a terminal does
    else:
        process.terminate()
    _, message = process.communicate(timeout=60)
    assert message == word
    assert (tmp_path / "ended").exists()


def test_interrupting_a_launched_run_ends_with_one_line(tmp_path: Path) -> None:
    process = start(["-c", LAUNCH], tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert (process.returncode, message) == (130, "interrupted\n")
    assert (tmp_path / "ended").exists()
