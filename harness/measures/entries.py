"""The entries of the catalogue of metrics, stage by stage. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from harness.measures.brain_entries import (
    list_alignment,
    list_brain,
    list_selectors,
    list_verdict,
)
from harness.measures.geometry_entries import list_geometry
from harness.measures.graft_entries import list_graft
from harness.measures.metric import (
    Kind,
    Metric,
    Stage,
)
from harness.measures.network_entries import (
    SCORINGS,
    list_collapse,
    list_drift,
    list_forgetting,
    list_scores,
    list_training,
)
from harness.measures.probes.kinds import PROBE_KINDS
from harness.measures.rewiring_entries import list_rewiring
from harness.measures.sequence_entries import (
    list_sequence,
    list_stability,
)
from harness.measures.shift_entries import list_shifts

STAGES: dict[Kind, Stage] = {
    "train": Stage("Training", "Logged at every optimizer step.", interpolated=False),
    "task": Stage("The fine-tuned task", "Scores of the fine-tuned head on the task's test images."),
    "probe": Stage(
        "Probes",
        "What frozen features know of a task, whether it is fine-tuned or not. Probes are trained afresh for "
        "every snapshot. Zero-shot scores need a pretrained text tower and prompt templates.",
    ),
    "forgetting": Stage(
        "Forgetting",
        "Change of a probe's score since step 0 on a task that was not fine-tuned: negative is forgetting. "
        "For multi-label tasks, mean AUROC replaces accuracy and names end in `_auroc`.",
    ),
    "shift": Stage(
        "Distribution shifts",
        "Accuracy on shifted test images ([robustness.md](robustness.md)); only of tasks with `shifts`. "
        "`<shift>` is `corruptions`, a group (`noise`, `blur`, `weather`, `digital`), a corruption, a shift "
        "of the shapes world, or a variant of ImageNet.",
        shown="accuracy",
    ),
    "sequence": Stage(
        "Sequences of tasks",
        "Logged at the end of every task. R[i, j] is the accuracy on task j when task i has ended, both "
        "counted from 0; T is the number of tasks so far. `<scoring>` says how tasks are scored: "
        f"{', '.join(f'`{name}`' for name in SCORINGS)}; `joint` is that of class-incremental sequences. "
        "Where all tasks are multi-label, R holds mean AUROC and names end in `_auroc`.",
        interpolated=False,
    ),
    "stability": Stage(
        "Stability gap",
        "Scores of a sequence’s heads every few steps around the end of each task, with `stability.window` "
        "above 0. Measures of a gap stand at the step of the boundary, min-ACC and WC-ACC at the end of each "
        "task.",
        interpolated=False,
    ),
    "drift": Stage(
        "Drift",
        "How far layers have moved since step 0, whether the brain reads them or not. Weights before the "
        "first block are `stem`, weights after the last `top`; `features` is what the head reads.",
    ),
    "collapse": Stage(
        "Collapse",
        "Whether fine-tuning broke the backbone. A collapsed snapshot gets no verdict. Features are those of "
        "the images of `drift`. Absent in runs tracked by earlier versions.",
        shown="collapsed",
    ),
    "graft": Stage(
        "Graft and repair",
        "What comes back when pretrained weights are put back into the last snapshot, layer by layer, "
        "and what foretells it ([graft.md](graft.md)). Only of runs after `palimpsest graft`. `<layer>` is a "
        "layer, `stem`, `top`, or `all` for all of them at once.",
        interpolated=False,
    ),
    "selectors": Stage("Selectors", "Where voxels read: means over the voxels of a place.", True),
    "rsa": Stage(
        "Geometry",
        "Representational similarity analysis beside selectors: whether the same pairs of images lie far "
        "apart in a region and in a layer ([geometry.md](geometry.md)). Regions, voxels and images are those "
        "of the evidence per layer. Absent in runs tracked by earlier versions.",
        True,
        "best_depth",
    ),
    "evidence": Stage(
        "Evidence per layer",
        "What leave-one-out ridge regressions say about layers "
        "([definitions.md](definitions.md#evidence-per-layer)).",
        True,
    ),
    "verdict": Stage(
        "Verdict",
        "What can be said about a region or the brain, by evidence per layer against degraded controls "
        "([definitions.md](definitions.md#the-verdict)). The brain's is the severest of its regions'. "
        "Absent for collapsed snapshots.",
        True,
        "kind",
    ),
    "rewiring": Stage(
        "Rewiring",
        "Change of what voxels read since step 0. Voxel measures are means over the voxels of a place that "
        "are predicted at either end (R² above 0.02); places with fewer than 5 have none. Signs are those of "
        "after − before. All but `n_predicted` have a noise floor: see the endings below. They describe, and "
        "have no p value of their own.",
        True,
        "wasserstein_excess",
    ),
    "alignment": Stage("Alignment", "How brain-like the order of layers is.", True),
    "brain": Stage(
        "Brain",
        "How well responses to held-out stimuli are predicted: means over the voxels of a place.",
        True,
    ),
}


def list_metrics() -> Iterator[Metric]:
    """List all metrics, by stage; rows derived from a measure follow it."""
    yield from list_training()
    yield from list_scores()
    for kind in PROBE_KINDS:
        yield from list_forgetting(kind)
    yield from list_shifts()
    yield from list_sequence()
    yield from list_stability()
    yield from list_drift()
    yield from list_collapse()
    yield from list_graft()
    yield from list_selectors()
    yield from list_geometry()
    yield from list_verdict()
    yield from list_rewiring()
    yield from list_alignment()
    yield from list_brain()
