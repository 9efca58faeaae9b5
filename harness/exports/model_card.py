"""The card of an exported model: what it is, how it is loaded, and what the run measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import (
    HubTaskConfig,
    PythonMethodConfig,
    config_hash,
    main_measure,
    tasks_in_order,
)
from harness.exports.exported_model import ExportedModel
from harness.exports.snippets import (
    describe_loading,
    write_snippet,
)
from harness.finetuning import read_manifest
from harness.measures import (
    PROBE_KINDS,
    Verdict,
    describe,
    name_auroc,
    read_verdict,
)
from harness.reporting import write_findings
from harness.runs import (
    label_subjects,
    read_run_manifest,
    read_values,
    snapshot_folder,
)

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard
else:
    EvalResult = ModelCard = Any

TEMPLATE = Path(__file__).parent / "templates" / "model_card.jinja"

HUB_LICENSES = (
    *("apache-2.0", "mit", "cc-by-nc-4.0", "cc-by-4.0", "bsd-3-clause"),
    *("apple-ascl", "apple-amlr", "gemma"),
)
"""Licenses of timm's weights that the hub knows by name; it takes others as "other" with a name."""


@dataclass(frozen=True)
class Kind:
    """What sort of folder the card is of.

    Attributes
    ----------
    library : str
        The hub's name of the library that loads it: timm, open_clip or peft.
    head_inside : bool
        Whether the library loads the head with the network.
    """

    library: str
    head_inside: bool


def write_card(exported: ExportedModel, kind: Kind) -> ModelCard:
    """Write the card of an exported model.

    Every number is a row of ``results.jsonl`` at the snapshot's step; what was not measured is left out.

    Parameters
    ----------
    exported : ExportedModel
    kind : Kind

    Returns
    -------
    huggingface_hub.ModelCard
    """
    from huggingface_hub import ModelCard, ModelCardData

    rows = read_values(exported.run, exported.step)
    manifest = read_run_manifest(exported.run)
    adapter = kind.library == "peft"
    results = _list_results(exported, rows)
    data = ModelCardData(
        license=_known_license(exported.origin.license),
        license_name=_other_license(exported.origin.license),
        library_name=kind.library,
        base_model=exported.origin.hub_id,
        base_model_relation=None if exported.origin.hub_id is None else "adapter" if adapter else "finetune",
        pipeline_tag=(
            "zero-shot-image-classification" if kind.library == "open_clip" else "image-classification"
        ),
        tags=_list_tags(exported, kind),
        datasets=[one.repository for one in _hub_tasks(exported)] or None,
        metrics=[result.metric_type for result in results] or None,
        model_name=_name(exported) if results else None,
        eval_results=results or None,
    )
    deltas, definitions = _list_changes(exported, rows)
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=_name(exported),
        summary=_summarise(exported, kind),
        loading=describe_loading(exported, kind.library, kind.head_inside),
        snippet=write_snippet(exported, kind.library, kind.head_inside),
        settings=_list_settings(exported, manifest),
        task=exported.task.name,
        scores=_list_scores(exported, rows),
        forgetting=deltas,
        definitions=definitions,
        findings=_write_findings(exported, rows),
        brain=exported.config.brain.name,
        mapping=exported.config.mapping.family,
        provenance=_list_provenance(exported, manifest),
    )


def _name(exported: ExportedModel) -> str:
    return (exported.repository or exported.run.resolve().name).rpartition("/")[2]


def _known_license(name: str | None) -> str | None:
    return name if name is None or name in HUB_LICENSES else "other"


def _other_license(name: str | None) -> str | None:
    return None if name in HUB_LICENSES else name


def _list_tags(exported: ExportedModel, kind: Kind) -> list[str]:
    library = exported.backbone_config.library
    tags = ["palimpsest", "image-classification", library, exported.config.method.name]
    return [*tags, "safetensors", *(["peft", "adapter"] if kind.library == "peft" else [])]


def _hub_tasks(exported: ExportedModel) -> list[HubTaskConfig]:
    """Data sets of the hub that the snapshot was fine-tuned on, up to the exported head's."""
    tasks = tasks_in_order(exported.config.task)[: exported.place + 1]
    return [task for task in tasks if isinstance(task, HubTaskConfig)]


def _list_results(exported: ExportedModel, rows: Mapping[str, float]) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    task = tasks_in_order(exported.config.task)[exported.place]
    on_hub = task if isinstance(task, HubTaskConfig) else None
    name = exported.task.name
    found = []
    for measure in dict.fromkeys((main_measure(task), "accuracy")):
        value = rows.get(f"task/{name}/{measure}")
        if value is not None:
            found.append(
                EvalResult(
                    task_type="image-classification",
                    task_name="Image classification",
                    dataset_type=name if on_hub is None else on_hub.repository,
                    dataset_name=name,
                    dataset_config=None if on_hub is None else on_hub.subset,
                    dataset_revision=None if on_hub is None else on_hub.revision,
                    dataset_split=getattr(task, "test", None) or "test",
                    metric_type="roc_auc" if measure == "auroc" else measure,
                    metric_name="AUROC" if measure == "auroc" else "Accuracy",
                    metric_value=value,
                )
            )
    return found


def _summarise(exported: ExportedModel, kind: Kind) -> str:
    backbone, config = exported.backbone_config, exported.config
    names = [task.name for task in tasks_in_order(config.task)]
    tasks = f"`{names[0]}`" if len(names) == 1 else f"{', then '.join(f'`{name}`' for name in names)}"
    what = "The LoRA adapter of" if kind.library == "peft" else "This is"
    lines = [
        f"{what} `{backbone.name}` ({backbone.library}'s `{backbone.model}`), fine-tuned on {tasks} with the "
        f"method `{config.method.name}`: the snapshot after {exported.step} optimizer steps.",
        f"It started from {exported.origin.text}.",
        f"The head has {exported.task.n_classes} "
        f"{'labels, of which an image may have several' if exported.task.multi_label else 'classes'}"
        f" (`{exported.task.name}`).",
    ]
    if kind.library != "peft" and exported.model.adapted is not None:
        lines.append("The adapters are merged into the weights.")
    if exported.backbone_config.library == "open_clip" and kind.library != "peft":
        tuned = exported.model.texts is not None
        lines.append(f"The text tower is {'fine-tuned too' if tuned else 'as pretrained'}.")
    lines.append("Palimpsest fine-tuned it to see what a vision network forgets and where it rewires.")
    return "\n".join(lines)


def _list_settings(exported: ExportedModel, manifest: Mapping[str, Any]) -> dict[str, Any]:
    config, finetune = exported.config, exported.config.finetune
    # a user's own arguments may name places on their machine
    own = {"arguments"} if isinstance(config.method, PythonMethodConfig) else set()
    method = config.method.model_dump(exclude={"name", *own}, exclude_none=True)
    sizes = manifest.get("tasks", {}).get(exported.task.name, {})
    preprocessing = exported.backbone.preprocessing
    found = {
        "method": config.method.name,
        **{f"method.{name}": value for name, value in method.items()},
        "optimizer steps": exported.step,
        "batch size": finetune.batch_size,
        "learning rate": f"{finetune.lr:g}, cosine",
        "warm-up": f"{finetune.warmup_fraction:g} of the steps",
        "optimizer": f"AdamW, weight decay {finetune.weight_decay:g}",
        "gradient clipping": "none" if finetune.clip_norm is None else f"norm {finetune.clip_norm:g}",
        "precision": "float32" if finetune.precision == "no" else f"{finetune.precision}, mixed",
        "seed": config.seed,
        "training images": sizes.get("n_train"),
        "image size": f"{preprocessing.size} pixels",
    }
    return {name: value for name, value in found.items() if value is not None}


def _list_scores(exported: ExportedModel, rows: Mapping[str, float]) -> list[list[str]]:
    name = exported.task.name
    n_test = rows.get(f"probe/{name}/n_test")
    found = []
    for measure in ("accuracy", "balanced_accuracy", "auroc", "ece"):
        row = f"task/{name}/{measure}"
        if row in rows:
            interval = ""
            # a label of an image says something about its others, so labels are no independent draws
            if measure == "accuracy" and n_test is not None and not exported.task.multi_label:
                interval = _write_interval(*accuracy_interval(rows[row], round(n_test)))
            cells = [describe(row).title, f"{rows[row]:.4f}", interval, _count(n_test)]
            found.append(cells)
    return found


def accuracy_interval(accuracy: float, n_images: int) -> tuple[float, float]:
    """95 % interval of an accuracy over test images (Wilson 1927).

    Parameters
    ----------
    accuracy : float
        Share of `n_images` that is right.
    n_images : int

    Returns
    -------
    tuple of float
        Lower and upper end.
    """
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(round(accuracy * n_images), n_images, alpha=0.05, method="wilson")
    return float(low), float(high)


def _list_changes(
    exported: ExportedModel, rows: Mapping[str, float]
) -> tuple[list[list[str]], dict[str, str]]:
    """Rows of the table of forgetting, and what its symbols mean."""
    found, definitions = [], {}
    for probe in exported.config.probes.names:
        for kind in PROBE_KINDS:
            for change in (kind.delta, name_auroc(kind.delta)):
                name = f"forgetting/{probe}/{change}"
                if name in rows:
                    auroc = change != kind.delta
                    symbol = f"{kind.symbol} (AUROC)" if auroc else kind.symbol
                    definitions[symbol] = describe(name).definition
                    ends = [rows.get(f"{name}_{end}") for end in ("low", "high")]
                    interval = "" if None in ends else _write_interval(ends[0], ends[1], signed=True)
                    n_test = rows.get(f"probe/{probe}/n_test")
                    found.append([probe, symbol, _signed(rows[name]), interval, _count(n_test)])
    return found, definitions


def _write_findings(exported: ExportedModel, rows: Mapping[str, float]) -> tuple[str, str] | None:
    subjects = label_subjects(exported.config.brain)
    verdicts: list[Verdict] = [
        verdict for label in subjects or (None,) if (verdict := read_verdict(rows, label)) is not None
    ]
    if not verdicts:
        return None
    return write_findings({exported.backbone_config.name: verdicts}, "subjects")


def _list_provenance(exported: ExportedModel, manifest: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: f"`{value}`"
        for name, value in collect_provenance(exported, manifest).items()
        if value is not None
    }


def collect_provenance(exported: ExportedModel, manifest: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return where an exported model comes from: run, step, code, settings and weights, by what they are."""
    found = read_run_manifest(exported.run) if manifest is None else manifest
    snapshot = read_manifest(snapshot_folder(exported.run, exported.step))
    return {
        "run": exported.run.resolve().name,
        "step": exported.step,
        "task": exported.task.name,
        "code version": found.get("code_version"),
        "exported by": f"palimpsest {version('palimpsest')}",
        "hash of the settings": config_hash(exported.config),
        "hash of the pretrained encoder": snapshot.pretrained_hash,
        "hash of the snapshot": snapshot.weights_hash,
        "fingerprint of the task": found.get("tasks", {}).get(exported.task.name, {}).get("fingerprint"),
    }


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _write_interval(low: float | None, high: float | None, signed: bool = False) -> str:
    assert low is not None and high is not None
    return f"{_signed(low)} to {_signed(high)}" if signed else f"{low:.4f} to {high:.4f}"


def _count(number: float | None) -> str:
    return "" if number is None else f"{number:.0f}"
