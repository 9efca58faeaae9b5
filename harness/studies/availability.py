"""External inputs of runs, and whether they are on this machine: looked up offline, in caches and on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name

from harness.backbones import locate_checkpoint
from harness.config import (
    AnyBackboneConfig,
    BackboneConfig,
    Config,
    DiffusionBackboneConfig,
    HubTaskConfig,
    ImagefolderTaskConfig,
    ImagenetTaskConfig,
    MedmnistTaskConfig,
    PythonBackboneConfig,
    PythonBrainConfig,
    PythonTaskConfig,
    TableTaskConfig,
    TaskConfig,
    one_by_one,
    probe_tasks,
    tasks_in_order,
)
from harness.runs import remember_network
from harness.storage import (
    InputError,
    hugging_face_home,
    import_function,
    user_path,
)

HERE, DOWNLOAD, MISSING = "here", "download", "missing"

# libraries try these names in order
TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
DIFFUSERS_FILES = ("unet/diffusion_pytorch_model.safetensors",)
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True, order=True)
class Need:
    """An external input of a run.

    Attributes
    ----------
    what : str
        Such as "weights of clip_b16".
    state : str
        "here"; "download": a run would fetch it; "missing": a run would fail.
    place : str
        Where it is, is expected, or comes from.
    """

    what: str
    state: str
    place: str


def list_needs(configs: Iterable[Config]) -> list[Need]:
    """List all external inputs of runs, sorted: weights, tokenizers, images, recordings."""
    needs: set[Need] = set()
    looked_up: dict[str, list[Need]] = {}
    seen: set[str] = set()
    for config in configs:
        key = config.backbone.model_dump_json()
        if key not in looked_up:
            looked_up[key] = find_weights(config.backbone)
        needs.update(looked_up[key])
        # runs of a study share tasks and probes
        images = f"{config.task.model_dump_json()} {config.probes.model_dump_json()}"
        if images not in seen:
            seen.add(images)
            for task in (*tasks_in_order(config.task), *probe_tasks(config)):
                needs.update(find_images(task))
        for brain in one_by_one(config.brain):
            if isinstance(brain, PythonBrainConfig):
                needs.add(_function(f"brain {brain.name}", "brain", brain.function))
            if (root := getattr(brain, "root", None)) is not None:
                needs.add(_local(f"brain {brain.name}", user_path(root)))
    return sorted(needs)


def find_weights(config: AnyBackboneConfig) -> list[Need]:
    """List the weights of a backbone, and its tokenizer if the library does not ship it."""
    what = f"weights of {config.name}"
    if isinstance(config, PythonBackboneConfig):
        return [_function(what, "backbone", config.function)]
    if isinstance(config, DiffusionBackboneConfig):
        if config.checkpoint is not None:
            return [_local(what, locate_checkpoint(config.checkpoint))]
        repository = str(config.weights)
        state = HERE if in_hub_cache(repository, DIFFUSERS_FILES) else DOWNLOAD
        return [Need(what, state, f"hub: {repository}")]
    if config.checkpoint is not None:
        found = [_local(what, locate_checkpoint(config.checkpoint))]
    elif config.weights is None:
        found = []
    elif config.library == "timm":
        found = [_timm_weights(what, config)]
    else:
        found = [_open_clip_weights(what, config)]
    return found + ([] if config.library == "timm" or not config.text else _tokenizer(config))


def find_images(config: TaskConfig) -> list[Need]:
    """List the image files of a task; built-in tasks need none."""
    what = f"images of {config.name}"
    if isinstance(config, PythonTaskConfig):
        return [_function(what, "task", config.function)]
    if isinstance(config, HubTaskConfig):
        if config.root is not None:
            return [_local(what, user_path(config.root))]
        return [_hub_images(what, config.repository)]
    if isinstance(config, MedmnistTaskConfig):
        file = f"{config.flag}.npz" if config.size == 28 else f"{config.flag}_{config.size}.npz"
        return [_local(what, user_path(config.root or "~/.medmnist") / file)]
    if isinstance(config, TableTaskConfig):
        return [
            _local(what, user_path(table)) for table in (config.table, config.test_table) if table is not None
        ]
    if isinstance(config, ImagenetTaskConfig):
        own = config.root if config.root is not None else f"hub:{config.repository}"
        places = {what: own} | {f"images of {name}": place for name, place in config.variants.items()}
        return [
            _hub_images(name, place.removeprefix("hub:").partition(":")[0])
            if place.startswith("hub:")
            else _local(name, user_path(place))
            for name, place in places.items()
        ]
    return [_local(what, user_path(config.root))] if isinstance(config, ImagefolderTaskConfig) else []


def _function(what: str, section: str, reference: str) -> Need:
    """A user's own function: imported, but not called."""
    try:
        import_function(f"{section}.function", reference)
    except InputError:
        return Need(what, MISSING, f"function {reference}")
    return Need(what, HERE, f"function {reference}")


def _local(what: str, path: Path) -> Need:
    return Need(what, HERE if path.exists() else MISSING, str(path))


def in_hub_cache(repository: str, files: tuple[str, ...]) -> bool:
    """Whether the hub's cache has one of these files of a weights repository."""
    repository, _, revision = repository.partition("@")
    found = (try_to_load_from_cache(repository, file, revision=revision or None) for file in files)
    return any(isinstance(path, str) for path in found)


def _alternatives(file: str) -> tuple[str, ...]:
    """Return the names to look for a file under, safetensors first."""
    for names in (TIMM_FILES, OPEN_CLIP_FILES):
        if file == names[1]:
            return names
    return (f"{Path(file).with_suffix('')}.safetensors", file)


def _timm_weights(what: str, config: BackboneConfig) -> Need:
    name = f"{config.model}.{config.weights}"

    def look_up() -> dict[str, str | None]:
        from timm.models import get_pretrained_cfg

        try:
            found = get_pretrained_cfg(name)
        except RuntimeError:  # of a network that it knows
            found = None
        if found is None:
            raise InputError(f"backbone.weights: timm knows no weights of {name}")
        return {part: getattr(found, part) for part in ("hf_hub_id", "hf_hub_filename", "url")}

    settings = remember_network("weights", config, {}, look_up)
    repository, url = settings["hf_hub_id"], settings["url"]
    if url and (torch_cache() / os.path.basename(urlparse(url).path)).exists():
        return Need(what, HERE, "torch's cache")
    if not repository:
        return Need(what, DOWNLOAD, str(url))
    # timm appends the model's name to an owner alone
    repository = repository + name if repository.endswith("/") else repository
    files = _alternatives(settings["hf_hub_filename"]) if settings["hf_hub_filename"] else TIMM_FILES
    return Need(what, HERE if in_hub_cache(repository, files) else DOWNLOAD, f"hub: {repository}")


def torch_cache() -> Path:
    """Return the folder that timm keeps downloads in, as torch names it; importing torch takes seconds."""
    home = os.getenv("TORCH_HOME", os.path.join(os.getenv("XDG_CACHE_HOME", "~/.cache"), "torch"))
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"


def _open_clip_weights(what: str, config: BackboneConfig) -> Need:
    def look_up() -> dict[str, str]:
        import open_clip

        found = open_clip.get_pretrained_cfg(config.model, str(config.weights))
        return {part: str(found.get(part) or "") for part in ("hf_hub", "url")}

    settings = remember_network("weights", config, {}, look_up)
    if settings["hf_hub"]:
        repository, file = os.path.split(settings["hf_hub"])
        files = _alternatives(file) if file else OPEN_CLIP_FILES
        return Need(what, HERE if in_hub_cache(repository, files) else DOWNLOAD, f"hub: {repository}")
    url = settings["url"]
    cached = user_path("~/.cache/clip") / os.path.basename(url)  # where open_clip puts these
    return Need(what, HERE, str(cached)) if url and cached.is_file() else Need(what, DOWNLOAD, url)


def _tokenizer(config: BackboneConfig) -> list[Need]:
    def look_up() -> str | None:
        import open_clip

        settings = open_clip.get_model_config(config.model) or {}
        name: str | None = settings.get("text_cfg", {}).get("hf_tokenizer_name")
        return name

    repository = remember_network("tokenizer", config, {}, look_up)
    if repository is None:
        return []
    state = HERE if in_hub_cache(repository, ("tokenizer.json", "tokenizer_config.json")) else DOWNLOAD
    return [Need(f"tokenizer of {config.name}", state, f"hub: {repository}")]


def datasets_cache() -> Path:
    """Return the folder that datasets keeps tables in, as it names it; importing it takes a second."""
    return Path(os.getenv("HF_DATASETS_CACHE", hugging_face_home() / "datasets"))


def _hub_images(what: str, repository: str) -> Need:
    downloaded = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="dataset")
    prepared = datasets_cache() / repository.replace("/", "___").lower()
    # only loading would tell whether the copy is complete
    for folder in (prepared, downloaded / "snapshots"):
        if folder.is_dir() and any(folder.iterdir()):
            return Need(what, HERE, f"cache: {folder}")
    return Need(what, DOWNLOAD, f"hub: {repository}")
