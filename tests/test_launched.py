"""How a process was launched: threads, and variables of a launcher that no launcher has set."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import joblib
import pytest

from harness.finetuning import launched
from harness.finetuning.launched import (
    LAUNCHER_VARIABLES,
    check_launcher_variables,
)
from harness.storage import InputError

# without torch, which takes seconds to import
THREADS = "from harness.finetuning.launched import count_given_cores\nprint(count_given_cores())"
OF_TORCH = (
    "import torch\n"
    "from harness.finetuning import use_given_cores\n"
    "use_given_cores()\n"
    "print(torch.get_num_threads())"
)
# as `accelerate launch` starts a process
LAUNCHER = (
    "import os, subprocess, sys\n"
    "os.environ |= {'OMP_NUM_THREADS': '1', 'ACCELERATE_MIXED_PRECISION': 'no'}\n"
    "subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
)
MEET = (
    "from datetime import timedelta\n"
    "from harness.finetuning import launched\n"
    "from harness.storage import exit_with_one_line\n"
    "launched.SECONDS_UNTIL_NOTICE, launched.LONGEST_WAIT = {notice}, timedelta(seconds={longest})\n"
    "exit_with_one_line(launched.join_launch)\n"
    "import torch\n"
    "print(torch.distributed.get_world_size())"
)


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with other threads and variables of a launcher."""
    left = ("OMP_NUM_THREADS", *LAUNCHER_VARIABLES)
    return {name: text for name, text in os.environ.items() if name not in left} | variables


def count_threads(code: list[str], **variables: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", *code],
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_threads_are_the_users_or_all_cores_that_are_given():
    cores = joblib.cpu_count()
    assert count_threads([THREADS], OMP_NUM_THREADS=str(cores + 1)) == cores + 1
    assert count_threads([OF_TORCH], OMP_NUM_THREADS=str(cores + 1)) == cores + 1
    assert count_threads([THREADS]) == cores
    assert count_threads([THREADS], WORLD_SIZE=str(2 * cores)) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no processor affinity here")
def test_processor_affinity_is_respected():
    one = min(os.sched_getaffinity(0))
    assert count_threads([f"import os\nos.sched_setaffinity(0, [{one}])\n{THREADS}"]) == 1


def test_a_launchers_default_is_not_the_users_choice():
    cores = joblib.cpu_count()
    assert count_threads([LAUNCHER, THREADS]) == cores
    assert count_threads([LAUNCHER, THREADS, "--num_cpu_threads_per_process=1"]) == 1
    assert count_threads([LAUNCHER, THREADS], OMP_NUM_THREADS="1") == 1


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": ""}, r"WORLD_SIZE='', expected a whole number; .*unset WORLD_SIZE$"),
        ({"WORLD_SIZE": "two"}, r"WORLD_SIZE='two', expected a whole number"),
        ({"LOCAL_RANK": "-1"}, r"LOCAL_RANK='-1', expected a whole number"),
        ({"LOCAL_RANK": "0"}, r"LOCAL_RANK=0 without WORLD_SIZE, RANK, MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "2"}, r"WORLD_SIZE=2 without RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, r"RANK=2, expected less than WORLD_SIZE=2"),
        ({"WORLD_SIZE": "0"}, r"RANK=0, expected less than WORLD_SIZE=0"),
    ],
)
def test_left_over_variables_are_named(variables, message, monkeypatch):
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(InputError, match=message):
        check_launcher_variables()


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"MASTER_ADDR": "login-node"},
        {"WORLD_SIZE": "2", "OMPI_COMM_WORLD_SIZE": "2"},
        dict.fromkeys(LAUNCHER_VARIABLES, "1") | {"WORLD_SIZE": "2"},
    ],
)
def test_whole_sets_of_variables_pass(variables, monkeypatch):
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    check_launcher_variables()


def launch_of_two(rank: int, port: int, notice: float, longest: float) -> subprocess.Popen[str]:
    variables = {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return subprocess.Popen(
        [sys.executable, "-c", MEET.format(notice=notice, longest=longest)],
        env=environment(**variables, **address, OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_a_process_whose_others_never_come_says_so_and_ends():
    process = launch_of_two(0, free_port(), notice=0.1, longest=2)
    out, message = process.communicate(timeout=120)
    lines = [line for line in message.splitlines() if "WORLD_SIZE" in line]
    assert (process.returncode, out) == (2, "")
    assert lines[0].startswith("waiting for 2 processes (WORLD_SIZE=2) at 127.0.0.1:")
    assert lines[-1].startswith("error: launch: 2 processes (WORLD_SIZE=2)")
    assert "unset WORLD_SIZE RANK LOCAL_RANK MASTER_ADDR MASTER_PORT" in lines[-1]
    assert "Traceback" not in message


def test_processes_of_a_launch_meet():
    port = free_port()
    both = [launch_of_two(rank, port, notice=60, longest=100) for rank in range(2)]
    for process in both:
        out, message = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "2\n"), message


def test_waiting_is_shorter_than_work():
    assert launched.LONGEST_WAIT < launched.LONGEST_WORK
