"""A study on a Ray whose nodes are disturbed: its results are those of the local launcher, bit for bit.

    python benchmarks/ray_check.py --output benchmarks/results/ray_check.json

It starts a Ray with a head and two nodes of one core each (`ray.cluster_utils`), all on this machine, and
runs a study of five tiny runs. In the middle of its fine-tuning,

- the fine-tuning of run 0 gets kill −9;
- the process of Ray in which run 1 is a task gets kill −9;
- the node of run 2 is lost: all of its processes get kill −9. A new node joins.

The same study then runs on the local launcher.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
from tiny_study import (
    LIMIT,
    Study,
    compare_with_local,
    count_in_store,
    run_check,
    wait_for_checkpoint,
)

from harness.studies.ray_cluster import QUIET

ON_RAY = [
    "study.launcher=ray",
    "study.ray.cpus_per_task=1",
    "study.ray.gpus_per_task=0",
    "study.ray.retries=3",
]
OBJECTS = 80 * 2**20  # bytes of a node's object store, the least
DISTURBANCES = {
    0: "kill -9 of the fine-tuning",
    1: "kill -9 of Ray's process",
    2: "kill -9 of all of the node's processes",
}


def find_fine_tuning(run: Path) -> psutil.Process:
    """Find the process that works on a run: the one that its lock names."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            return psutil.Process(json.loads((run / ".lock").read_text("utf-8"))["process"])
        except (ValueError, psutil.Error):
            time.sleep(0.05)
    raise SystemExit(f"{run}: nobody works on it")


def disturb(study: Study, process: subprocess.Popen[bytes], seed: int, cluster: Any) -> dict[str, Any]:
    """Disturb a run in the middle of its fine-tuning; return how far it was."""
    run, step = wait_for_checkpoint(study, process, seed)
    worker = find_fine_tuning(run)
    if seed == 0:
        worker.send_signal(signal.SIGKILL)
        return {"seed": seed, "disturbance": DISTURBANCES[seed], "at step": step}
    above = [parent.pid for parent in worker.parents()]
    if seed == 1:
        os.kill(above[0], signal.SIGKILL)
        return {"seed": seed, "disturbance": DISTURBANCES[seed], "at step": step}
    raylets = [info.process.pid for node in cluster.worker_nodes for info in node.all_processes["raylet"]]
    node = psutil.Process(next(pid for pid in above if pid in raylets))
    # all at once, as by a loss of power: a run outlives the raylet alone
    for lost in [node, *node.children(recursive=True)]:
        lost.send_signal(signal.SIGKILL)
    cluster.add_node(num_cpus=1, object_store_memory=OBJECTS)
    return {"seed": seed, "disturbance": DISTURBANCES[seed], "at step": step}


def check(work: Path) -> dict[str, Any]:
    """Run the study on Ray and here; return what was seen."""
    os.environ.update(QUIET)
    import ray
    from ray.cluster_utils import Cluster

    began = time.monotonic()
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": OBJECTS}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=OBJECTS)
        study = Study(work / "on_ray", "disturbed", list(range(5)), {})
        process = study.start(*ON_RAY, f"study.ray.address={cluster.address}")
        try:
            disturbed = [disturb(study, process, seed, cluster) for seed in DISTURBANCES]
        except BaseException:
            process.kill()
            raise
        assert process.wait(LIMIT) == 0, study.said()[-3000:]
        seconds = time.monotonic() - began
    finally:
        cluster.shutdown()
    stores = count_in_store(study.runs)
    compared = compare_with_local(work, study)
    said = study.said().splitlines()
    return {
        "ray": ray.__version__,
        **compared,
        "disturbed": disturbed,
        "started again": [line[line.index("]") + 2 :] for line in said if line.endswith("; started again")],
        "runs in MLflow": stores,
        "seconds of the disturbed study": round(seconds, 1),
    }


if __name__ == "__main__":
    run_check(__doc__, "ray_check", check)
