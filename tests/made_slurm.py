"""A small stand-in for SLURM: sbatch, srun, squeue and scontrol as scripts, which run jobs on this machine.

`benchmarks/slurm_check.py` tries a real one.
"""

from __future__ import annotations

from pathlib import Path

SBATCH = """\
#!/bin/bash
if [ -e "$MADE_SLURM/refuse" ]; then
    echo "sbatch: error: invalid partition specified: none" >&2
    echo "sbatch: error: Batch job submission failed: Invalid partition name specified" >&2
    exit 1
fi
id=$(( $(ls "$MADE_SLURM"/*.sh 2>/dev/null | wc -l) + 1 ))
cp "$1" "$MADE_SLURM/$id.sh"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
name=$(sed -n 's/^#SBATCH --job-name=//p' "$1")
if [ -z "$last" ]; then elements=$id; else elements=$(seq -f "${id}_%.0f" 0 "$last"); fi
for element in $elements; do
    echo "$name" > "$MADE_SLURM/$element.name"
    begin_job "$element"
done
echo "Submitted batch job $id"
"""
# in a session of its own, which a job that is queued again leaves
BEGIN = """\
#!/bin/bash
echo RUNNING > "$MADE_SLURM/$1.state"
setsid --fork bash -c '
    export SLURM_JOB_ID=$1
    if [ "$1" != "${1%_*}" ]; then export SLURM_ARRAY_JOB_ID=${1%_*} SLURM_ARRAY_TASK_ID=${1#*_}; fi
    echo $$ > "$MADE_SLURM/$1.session"
    bash "$MADE_SLURM/${1%_*}.sh"
    rm "$MADE_SLURM/$1.state"
' job "$1" > /dev/null 2>> "$MADE_SLURM/errors"
"""
SRUN = """\
#!/bin/bash
while [ $# -gt 0 ]; do
    case "$1" in
        --output|--error) shift 2 ;;
        --*) shift ;;
        *) exec "$@" ;;
    esac
done
"""
SQUEUE = """\
#!/bin/bash
case "$*" in
    *--jobs=*) cat "$MADE_SLURM/$(sed 's/.*--jobs=\\([^ ]*\\).*/\\1/' <<< "$*").state" ;;
    *) for file in "$MADE_SLURM"/*.state; do
           [ -e "$file" ] || continue
           job=$(basename "$file" .state)
           echo "$job|$(cat "$file")|$(cat "$MADE_SLURM/$job.name")"
       done ;;
esac
"""
SCONTROL = """\
#!/bin/bash
echo "$2" >> "$MADE_SLURM/requeued"
old=$(cat "$MADE_SLURM/$2.session")
echo PENDING > "$MADE_SLURM/$2.state"
# the caller may be in the job that ends
setsid --fork bash -c '
    kill -KILL -- "-$1"
    while kill -0 -- "-$1"; do sleep 0.02; done
    begin_job "$2"
' requeue "$old" "$2" > /dev/null 2>&1
sleep 0.1
"""
COMMANDS = {"sbatch": SBATCH, "begin_job": BEGIN, "srun": SRUN, "squeue": SQUEUE, "scontrol": SCONTROL}


def write_commands(folder: Path) -> Path:
    """Write the commands into a folder, to be put on ``PATH``; return it."""
    folder.mkdir()
    for name, text in COMMANDS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder
