"""Evidence per layer of every snapshot, on disk, and the verdicts that follow from it.

Stimuli, regions, penalties and controls of a subject are chosen once, at step 0, and shared by all snapshots.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from harness.brains import Brain
from harness.config import EvidenceConfig
from harness.mappings import (
    MIN_R2,
    Evidence,
    FitData,
    PooledTokens,
    Region,
    Split,
    choose_penalties,
    measure_evidence,
    pool_tokens,
)
from harness.measures import (
    Controls,
    Degraded,
    changed_shares,
    compare_geometry,
    counted_places,
    degrade,
    geometry_ceilings,
    name_evidence,
    name_geometry,
)
from harness.runs import (
    Subject,
    controls_folder,
    evidence_file,
)
from harness.storage import (
    InputError,
    progress_bar,
    read_arrays,
    read_record,
    write_arrays,
    write_atomically,
    write_record,
)

log = logging.getLogger(__name__)

CONTROLS = "controls"
"""Place of step 0's evidence, as its files name it."""

FEWEST = 20  # stimuli that evidence needs


class EvidenceFiles:
    """One subject's evidence: computes what is missing, and names what is there.

    Parameters
    ----------
    subject : Subject
    config : EvidenceConfig
    seed : int
        Of the run: draws stimuli and voxels where there are more than needed, and the controls' noise.
    """

    def __init__(self, subject: Subject, config: EvidenceConfig, seed: int) -> None:
        self._folder, self._config, self._seed = subject.folder, config, seed

    def has(self, step: int) -> bool:
        """Whether a snapshot's evidence is on disk; that of step 0 is in the controls."""
        file = controls_folder(self._folder) if step == 0 else evidence_file(self._folder, step)
        return file.exists()

    @property
    def controls(self) -> Path:
        """Folder of step 0's evidence and controls."""
        return controls_folder(self._folder)

    def make_controls(self, data: FitData, brain: Brain, progress: str | None) -> None:
        """Choose stimuli, regions and penalties at step 0, and compute its evidence and controls."""
        generator = np.random.default_rng(self._seed)
        rows = _distinct_pictures(data.split)
        if len(rows) > self._config.n_stimuli:
            rows = np.sort(generator.choice(rows, self._config.n_stimuli, replace=False))
        pooled, responses = self._read(data, rows)
        penalties: list[float] = []
        regions: list[Region] = []
        if len(rows) < FEWEST:
            log.warning("evidence per layer: found %d stimuli, expected %d; no verdicts", len(rows), FEWEST)
        else:
            penalties, r2 = choose_penalties(pooled, responses)
            regions = self._choose_regions(brain, r2 > MIN_R2, generator)
        description = {
            "layers": list(pooled.layers),
            "penalties": penalties,
            "regions": [region.name for region in regions],
        }
        arrays = {f"region.{region.name}": region.voxels for region in regions} | {"rows": rows}
        if regions:

            def show(draws: Sequence[int]) -> Iterator[int]:
                return iter(progress_bar(draws, progress))

            controls = degrade(
                pooled, responses, regions, penalties, self._seed, self._config.n_draws, label=show
            )
            description["inflation"] = {kind: each.inflation for kind, each in controls.degraded.items()}
            arrays |= _evidence_arrays(controls.before) | _geometry_arrays(pooled, responses, regions)
            ceiling = brain.score_on(rows, averaged=True).noise_ceiling
            if ceiling is not None:
                arrays["rsa_ceiling"] = geometry_ceilings(responses.cpu().numpy(), ceiling, regions)
            for kind, each in controls.degraded.items():
                arrays |= {f"{kind}.{part}": getattr(each, part) for part in ("loss", "cross", "error")}
        with write_atomically(controls_folder(self._folder)) as temporary:
            temporary.mkdir()
            write_arrays(temporary / "controls.safetensors", arrays, CONTROLS)
            write_record(temporary / "controls.json", description, CONTROLS)

    def measure(self, step: int, data: FitData) -> None:
        """Compute the evidence of a later snapshot."""
        plan = self._load_plan()
        arrays: dict[str, np.ndarray] = {}
        if plan.regions:
            pooled, responses = self._read(data, plan.rows)
            evidence = measure_evidence(pooled.features, responses, plan.regions, plan.penalties)
            arrays = _evidence_arrays(evidence) | _geometry_arrays(pooled, responses, plan.regions)
        file = evidence_file(self._folder, step)
        with write_atomically(file) as temporary:
            write_arrays(temporary, arrays, file.stem)

    def name(self, steps: Sequence[int], collapsed: Collection[int]) -> dict[int, dict[str, float]]:
        """Name evidence, geometry and verdicts of every snapshot; collapsed ones get no verdict.

        Returns
        -------
        dict of step to dict of name to float
        """
        plan = self._load_plan()
        if not plan.regions:
            return {step: {} for step in steps}
        controls = plan.load_controls()
        rows: dict[int, dict[str, float]] = {}
        for step in steps:
            after = plan.load_evidence(evidence_file(self._folder, step)) if step else None
            rows[step] = name_evidence(
                controls, after, plan.regions, plan.layers, self._seed, judged=step not in collapsed
            ) | plan.name_geometry(evidence_file(self._folder, step) if step else None)
        return rows

    def regions(self) -> list[Region]:
        """Return the regions that were chosen at step 0."""
        return self._load_plan().regions

    def changed_shares(self, step: int, ceiling: Float[np.ndarray, " n_voxels"] | None) -> dict[str, float]:
        """By how much every layer's share of reading changed since step 0, beyond the controls.

        Regions are weighted by the sum of their voxels' noise ceilings, or by their number (`ceiling` None).
        Empty if no region has evidence.
        """
        plan = self._load_plan()
        if not plan.regions:
            return {}
        after = plan.load_evidence(evidence_file(self._folder, step))
        weights = [
            len(region.voxels) if ceiling is None else ceiling[region.voxels].clip(min=0).sum()
            for region in plan.regions
        ]
        found = changed_shares(plan.load_controls(), after, np.array(weights, dtype=float))
        return dict(zip(plan.layers, found.tolist(), strict=True))

    def _choose_regions(
        self, brain: Brain, predicted: Bool[np.ndarray, " n_voxels"], generator: np.random.Generator
    ) -> list[Region]:
        """ROIs with enough predicted voxels; the whole brain if it has no ROIs."""
        regions = []
        for name, voxels in counted_places(brain.rois, predicted).items():
            if name == "all" and brain.rois:
                continue
            if len(voxels) > self._config.n_voxels:
                voxels = np.sort(generator.choice(voxels, self._config.n_voxels, replace=False))
            regions.append(Region(name, voxels))
        return regions

    def _read(self, data: FitData, rows: Int[np.ndarray, " n_rows"]) -> tuple[PooledTokens, Tensor]:
        """Pool the tokens of some rows, and average the responses to their pictures."""
        pooled = pool_tokens(data.tokens, rows, self._config.pool)
        responses = data.responses[rows]
        if data.split.picture is not None:
            shown = data.split.picture
            responses = np.stack([data.responses[shown == shown[row]].mean(axis=0) for row in rows])
        return pooled, torch.as_tensor(responses, dtype=torch.float32, device=pooled.features[0].device)

    def _load_plan(self) -> _Plan:
        return _Plan(controls_folder(self._folder))


def copy_of_step(source: Path, target: Path) -> None:
    """Copy a snapshot's file of arrays to another step."""
    arrays = read_arrays(source, source.stem)
    with write_atomically(target) as temporary:
        write_arrays(temporary, arrays, target.stem)


class _Plan:
    """What was chosen at step 0, as it stands in the controls' files."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "controls.safetensors"
        self._description = read_record(folder / "controls.json", CONTROLS)
        self._arrays = read_arrays(self._file, CONTROLS)
        with _naming(folder):
            self.layers: tuple[str, ...] = tuple(self._description["layers"])
            self.penalties: list[float] = self._description["penalties"]
            self.rows = self._arrays["rows"]
            names = self._description["regions"]
            self.regions = [Region(name, self._arrays[f"region.{name}"]) for name in names]

    def load_controls(self) -> Controls:
        """Rebuild the controls."""
        arrays = self._arrays
        with _naming(self._file):
            before = Evidence(arrays["loss"], arrays["cross"], arrays["noise_loss"], arrays["noise_cross"])
            degraded = {
                kind: Degraded(
                    arrays[f"{kind}.loss"], arrays[f"{kind}.cross"], arrays[f"{kind}.error"], inflation
                )
                for kind, inflation in self._description["inflation"].items()
            }
        return Controls(before, degraded)

    def load_evidence(self, file: Path) -> Evidence:
        """Read a snapshot's evidence, which has the controls' stimuli, regions and layers."""
        arrays, expected = read_arrays(file, file.stem), self._arrays["loss"].shape
        with _naming(file):
            found = Evidence(arrays["loss"], arrays["cross"])
        if found.loss.shape != expected:
            raise InputError(f"{file}: loss is {found.loss.shape}, expected {expected} as in {self._file}")
        return found

    def name_geometry(self, file: Path | None) -> dict[str, float]:
        """Name the geometry in a snapshot's file, or that of step 0; empty in runs of earlier versions."""
        arrays = self._arrays if file is None else read_arrays(file, file.stem)
        if "rsa" not in arrays:
            return {}
        expected = self._arrays["loss"].shape[1:]
        if arrays["rsa"].shape != expected:
            found = arrays["rsa"].shape
            raise InputError(f"{file or self._file}: rsa is {found}, expected {expected} as in {self._file}")
        ceilings = arrays.get("rsa_ceiling") if file is None else None
        return name_geometry(arrays["rsa"], ceilings, [region.name for region in self.regions], self.layers)


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Name the file in which something is missing."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{file}: not evidence as tracking writes it ({error!r:.80})") from None


def _distinct_pictures(split: Split) -> Int[np.ndarray, " n_pictures"]:
    """First row of every picture that is fitted on or held out."""
    rows = np.sort(np.concatenate([split.train, split.held_out]))
    return rows[np.unique(split.shown_in(rows), return_index=True)[1]]


def _evidence_arrays(evidence: Evidence) -> dict[str, np.ndarray]:
    arrays = {"loss": evidence.loss, "cross": evidence.cross}
    if evidence.noise_loss is not None and evidence.noise_cross is not None:
        arrays |= {"noise_loss": evidence.noise_loss, "noise_cross": evidence.noise_cross}
    return arrays


def _geometry_arrays(
    pooled: PooledTokens, responses: Tensor, regions: Sequence[Region]
) -> dict[str, np.ndarray]:
    features = [layer.cpu().numpy() for layer in pooled.features]
    return {"rsa": compare_geometry(features, responses.cpu().numpy(), regions)}
