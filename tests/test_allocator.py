"""Memory that is freed is kept."""

import platform
import subprocess
import sys

import pytest

FAULTS_OF_A_LATER_STEP = """
import resource
import torch
from harness.allocator import keep_freed_memory

def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(4 * 2**20) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
kept = keep_freed_memory() if KEEP else None
for _ in range(3):  # arrays have found their places
    step()
print(kept, step())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be told")
@pytest.mark.parametrize(
    ("keep", "environment", "told", "again"),
    [
        (True, {}, "True", False),
        (False, {}, "None", True),
        (True, {"MALLOC_TRIM_THRESHOLD_": "131072"}, "False", True),
    ],
)
def test_what_a_step_frees_is_kept_for_the_next(keep, environment, told, again):
    code = FAULTS_OF_A_LATER_STEP.replace("KEEP", str(keep))
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    answer, faults = done.stdout.split()
    assert answer == told
    # 128 MiB of pages of 4 KiB
    assert (int(faults) > 1000) == again
