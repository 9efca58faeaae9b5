"""A SLURM of one node in a folder, started without systemd: used by `slurm_check.py`.

It needs Debian's packages slurm-wlm and munge, and root.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

CONFIGURATION = """\
ClusterName=check
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
# a job that is queued again begins after cred_expire seconds, which are 120 by default
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={ctld_port}
SlurmdPort={d_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=30
MinJobAge=600
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=check Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
LIMIT = 60.0  # seconds until the node is there


@contextmanager
def running_slurm(folder: Path, cpus: int) -> Iterator[dict[str, str]]:
    """Run a SLURM of one node; yields the environment that its commands need.

    Parameters
    ----------
    folder : Path
        For its files, and logs if it does not start.
    cpus : int
        That the node has, as the machine does: at least 2.
    """
    folder = folder.resolve()
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    ports = _free_ports(2)
    text = CONFIGURATION.format(
        folder=folder,
        host=socket.gethostname().split(".")[0],
        ctld_port=ports[0],
        d_port=ports[1],
        cpus=cpus,
        memory=psutil.virtual_memory().total // 2**20 // 2,
    )
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(_start_munge(folder))
        for command in (["slurmctld", "-D", "-c"], ["slurmd", "-D", "-c"]):
            started.append(_start(command, folder / f"{command[0]}.out", environment))
        _wait_for_node(environment, folder)
        yield environment
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _start_munge(folder: Path) -> subprocess.Popen[bytes]:
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    command = [
        *("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"),
        *(f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munged.seed"),
        f"--log-file={folder}/munged.log",
    ]
    process = _start(command, folder / "munged.out", {})
    deadline = time.monotonic() + LIMIT
    while not (folder / "munge.socket").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"munged does not start: see {folder / 'munged.out'}")
        time.sleep(0.1)
    return process


def _start(command: list[str], output: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    program = shutil.which(command[0]) or f"/usr/sbin/{command[0]}"
    with output.open("wb") as file:
        return subprocess.Popen(
            [program, *command[1:]], env=os.environ | environment, stdout=file, stderr=subprocess.STDOUT
        )


def _wait_for_node(environment: dict[str, str], folder: Path) -> None:
    deadline = time.monotonic() + LIMIT
    while True:
        found = subprocess.run(
            ["sinfo", "--noheader", "--format=%t"],
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        if found.stdout.strip() == "idle":
            return
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"no node is idle after {LIMIT:.0f} s: {found.stdout}{found.stderr}; see {folder}"
            )
        time.sleep(0.5)


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
