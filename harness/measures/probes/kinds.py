"""The kinds of probe: a record per kind, read by tracking, the catalogue of metrics, tables and figures.

This module holds names only and imports nothing heavy. The module that computes a kind has the kind's name:
``harness.measures.probes.linear`` and so on; its function ``probe`` takes a `ProbedTask` and the settings.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProbeKind:
    """One way to measure what features know of a task.

    Attributes
    ----------
    name : str
        Name of its module, and prefix of its scores: ``linear`` gives ``probe/<task>/linear_accuracy``.
    title : str
        In headings.
    delta, symbol : str
        Name and symbol of its score's change since step 0: ``forgetting/<task>/delta_lp`` and Δ_LP.
    definition, source : str
        For the catalogue of metrics.
    code : str
        Function that computes it.
    in_tables : bool
        Whether tables and figures show its Δ, and its matrix of a sequence. All kinds are measured anyway.
    on_task : bool
        Whether they also show its score on the fine-tuned task.
    classifies : bool
        Whether its module has a function `classifier`, so that it is measured under distribution shifts.
    """

    name: str
    title: str
    delta: str
    symbol: str
    definition: str
    source: str
    code: str
    in_tables: bool = True
    on_task: bool = False
    classifies: bool = False

    @property
    def prefix(self) -> str:
        """Prefix of its scores' names."""
        return f"{self.name}_"


PROBE_KINDS = (
    ProbeKind(
        "linear",
        title="linear probe",
        delta="delta_lp",
        symbol="Δ_LP",
        definition="a linear layer trained afresh on the frozen features",
        source="LDIFS, Mukhoti et al., TMLR 2024",
        code="harness.measures.probes.linear.linear_probe",
        on_task=True,
        classifies=True,
    ),
    ProbeKind(
        "knn",
        title="nearest neighbours",
        delta="delta_knn",
        symbol="Δ_kNN",
        definition="a weighted vote of the nearest training images by cosine similarity",
        source="DINO, Caron et al. 2021",
        code="harness.measures.probes.knn.knn_probe",
        in_tables=False,
    ),
    ProbeKind(
        "zero_shot",
        title="zero-shot",
        delta="delta_zs",
        symbol="Δ_ZS",
        definition="the class text of highest cosine similarity under the pretrained text tower",
        source="CLIP, Radford et al. 2021",
        code="harness.measures.probes.zero_shot.zero_shot",
        classifies=True,
    ),
    ProbeKind(
        "pretrained_head",
        title="pretrained head",
        delta="delta_ph",
        symbol="Δ_PH",
        definition="the ImageNet classifier that the weights came with, restricted to the task's classes",
        source="ImageNet-R, Hendrycks et al., ICCV 2021",
        code="harness.measures.probes.pretrained_head.pretrained_head",
        classifies=True,
    ),
)
