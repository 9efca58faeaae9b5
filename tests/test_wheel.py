"""The wheel: built, installed into an empty target, used from another folder without the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from overrides import SMALL_TRACKING, TINY

from harness.config.folders import REPOSITORY

Run = Callable[..., subprocess.CompletedProcess[str]]
MINI = [
    *TINY,
    *SMALL_TRACKING,
    "finetune.max_steps=1",
    "study.name=mini",
]


def build(kind: str, source: Path, folder: Path) -> None:
    """Build a wheel or a source distribution offline, with the backend of this environment."""
    code = f"import sys, setuptools.build_meta as backend; backend.build_{kind}(sys.argv[1])"
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def list_files(*folders: str) -> list[str]:
    """List the project's files, committed or not."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *folders]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (REPOSITORY / name).is_file()]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a source distribution, and the wheel from it; return their folder."""
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout: what belongs to the project is not known")
    folder = tmp_path_factory.mktemp("built")
    checkout = folder / "checkout"  # the backend writes into the folder it builds from
    for name in list_files():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, checkout / name)
    build("sdist", checkout, folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    build("wheel", folder / sdist.name.removesuffix(".tar.gz"), folder)
    return folder


@pytest.fixture(scope="session")
def target(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (wheel,) = built.glob("*.whl")
    target = tmp_path_factory.mktemp("target")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


@pytest.fixture
def palimpsest(target: Path, tmp_path: Path) -> Run:
    """Run the wheel's command in an empty folder, without any editable install of ours on the path."""
    # runs like the console script, in a Python that finds our packages only in the target
    code = (
        "import sys\n"
        "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in repr(finder).lower()]\n"
        "import harness, tasks\n"
        "assert harness.__file__.startswith(sys.argv[1]), harness.__file__\n"
        "assert tasks.__file__.startswith(sys.argv[1]), tasks.__file__\n"
        "del sys.argv[1]\n"
        "from harness.cli import main\n"
        "main()"
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PALIMPSEST_CONF")
    }
    environment["PYTHONPATH"] = str(target)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-c", code, str(target), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_the_wheel_holds_code_and_data_and_nothing_else(target: Path) -> None:
    files = {name for name in list_files("configs", "harness", "tasks") if not name.endswith(".md")}
    expected = {f"harness/{name}" if name.startswith("configs/") else name for name in files}
    installed = {path.relative_to(target) for path in target.rglob("*") if path.is_file()}
    assert {str(path) for path in installed if not path.parts[0].endswith(".dist-info")} == expected


def test_a_study_runs_to_its_report(palimpsest: Run, tmp_path: Path) -> None:
    printed = palimpsest("config", "seed=3")
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.startswith("seed: 3\n")

    plan = palimpsest("study", "--plan=quick", "study=demo")
    assert plan.returncode == 0, plan.stderr
    assert "3 runs, 0 finished" in plan.stdout
    assert "missing, and no run can download it: none" in plan.stdout  # the mini weights are found

    study = palimpsest("study", *MINI)
    assert study.returncode == 0, study.stderr
    (run,) = (tmp_path / "runs" / "mini").glob("mini_random-*")
    assert (run / "finished.json").exists()
    assert "</html>" in (tmp_path / "runs" / "mini" / "report.html").read_text(encoding="utf-8")
    assert '"code_version": "palimpsest' in (run / "manifest.json").read_text(encoding="utf-8")
