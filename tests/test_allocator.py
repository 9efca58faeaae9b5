"""The allocator keeps freed memory."""

import platform
import subprocess
import sys

import pytest

FAULTS_OF_A_LATER_STEP = """
import resource
import torch
from harness.finetuning.allocator import keep_freed_memory

def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(4 * 2**20) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
told = keep_freed_memory()
for _ in range(3):  # arrays have found their places
    step()
print(told, step())
"""


def run(environment):
    command = [sys.executable, "-c", FAULTS_OF_A_LATER_STEP]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    told, faults = done.stdout.split()
    return told, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be told")
def test_what_a_step_frees_is_kept_for_the_next():
    told, faults = run({})
    assert told == "True"
    assert faults < 1000  # of 32768, pages of 4 KiB in 128 MiB


def test_what_the_environment_says_of_malloc_holds():
    assert run({"MALLOC_TRIM_THRESHOLD_": "131072"})[0] == "False"
