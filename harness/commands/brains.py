"""Describe a brain before a study: what it holds and lacks, the memory a study needs, and a figure.

    palimpsest brains brain=algonauts2023 brain.root=/data/alg23/subj01
    palimpsest brains brain=arrays brain.root=mine.npz backbone=mini_clip
    palimpsest brains brain=nsd brain.root=/data/nsd brain.subjects=[1,2,5,7]
    palimpsest brains brain=simulated brain.stimuli=pictures

Takes the settings of a study; memory is that of its backbone and mapping.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.brains import (
    Brain,
    describe_brain,
    load_brain,
    load_truth,
)
from harness.commands.arguments import OverrideParser
from harness.config import (
    BrainConfig,
    Config,
    SimulatedConfig,
    TrainedMappingConfig,
    load_config,
    one_by_one,
)
from harness.runs import (
    count_token_bytes,
    hash_sources,
    package_version,
)
from harness.storage import (
    InputError,
    content_hash,
    format_bytes,
    make_folder,
    make_once,
    user_path,
    write_atomically,
)

PICTURE = "brain.png"


class _UnknownError(InputError):
    """Why a backbone cannot be loaded."""


def look(config: Config) -> list[tuple[str, str]]:
    """Return label and text of every line, subject by subject, and write figures below ``runs_dir``.

    For a simulated subject, the truth is written beside the figure.
    """
    return [line for alone in one_by_one(config.brain) for line in _look_at(config, alone)]


def _look_at(config: Config, alone: BrainConfig) -> list[tuple[str, str]]:
    brain = load_brain(alone)
    lines = [("brain", brain.name), *describe_brain(brain)]
    lines += [("memory", f"{format_bytes(brain.responses.nbytes)} for responses")]
    lines += [("", f"{_tokens_in_words(config, brain)} for the tokens of one snapshot")]
    folder = user_path(config.runs_dir) / "brains"
    if isinstance(alone, SimulatedConfig):
        from harness.brains import save_truth

        save_truth(load_truth(alone), folder / f"{brain.name}.truth.npz")
        lines.append(("truth", str(folder / f"{brain.name}.truth.npz")))
    path = folder / f"{brain.name}.png"
    _draw(brain, path)
    return [*lines, ("picture", str(path))]


def _draw(brain: Brain, path: Path) -> None:
    """Draw a brain, or copy its picture from the cache: drawing takes seconds, with imports."""
    key = {
        "sources": hash_sources("plot"),
        "versions": {name: package_version(name) for name in ("matplotlib", "seaborn")},
        # not the fingerprint, which leaves out names, regions, ceilings and the surface
        "drawn": content_hash(
            *(brain.name, brain.coords, brain.hemisphere, brain.noise_ceiling),
            [[roi.name, roi.voxels] for roi in brain.rois],
            None if brain.surface is None else vars(brain.surface),
        ),
    }
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / "made"

        def draw() -> None:
            from harness.plot import (
                draw_brain,
                save_png,
            )

            save_png(draw_brain(brain), made / PICTURE)

        make_once("pictures", key, made, draw)
        make_folder(path.parent)
        with write_atomically(path) as unfinished:
            shutil.copyfile(made / PICTURE, unfinished)


def _tokens_in_words(config: Config, brain: Brain) -> str:
    first = brain.stimuli[0]

    def count() -> int:
        # torch takes seconds to import
        from harness.backbones import load_backbone
        from harness.tokens import extract_tokens

        try:
            backbone = load_backbone(config.backbone)
        except InputError as error:
            raise _UnknownError(str(error)) from None
        one = extract_tokens(backbone, [first], config.mapping.token_size, 1)
        return sum(layer.nbytes for layer in (*one.local, *one.global_))

    try:
        n_bytes = count_token_bytes(config.backbone, config.mapping.token_size, count) * brain.n_images
    except _UnknownError as error:
        return f"an unknown amount (the backbone cannot be loaded: {error})"
    precision = "float32"
    if isinstance(config.mapping, TrainedMappingConfig) and config.mapping.token_precision != precision:
        n_bytes, precision = n_bytes // 2, config.mapping.token_precision
    return f"{format_bytes(n_bytes)} ({config.backbone.name}, {precision})"


def main(argv: Sequence[str] | None = None) -> None:
    """Describe the brains that overrides resolve to."""
    parser = OverrideParser(
        "brains",
        "Describe a brain before a study: what was found, what is missing, the memory a study needs, and a\n"
        "picture. Takes the settings of a study.",
        (
            "brains brain=algonauts2023 brain.root=/data/alg23/subj01",
            "brains brain=arrays brain.root=mine.npz backbone=mini_clip",
            "brains brain=nsd brain.root=/data/nsd brain.subjects=[1,2,5,7]",
        ),
        ("runs_dir", "brain.root", "brain.subject", "brain.subjects", "brain.rois", "brain.min_ceiling"),
    )
    for label, text in look(load_config(parser.parse(argv).overrides)):
        print(f"{label:10}{text}")
