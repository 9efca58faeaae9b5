"""Graft and repair: a finished run's last snapshot with pretrained weights put back, unit by unit.

Units are the layers of the backbone, what stands before and after them, and for LoRA the adapters of every
layer; each adapter is also grafted alone. One unit at a time, then one after the other in the orders that
predictors give, reversed, random, and by measured repair. The fine-tuned head stays. What is measured on a
graft stands in one file, whole or absent, so that the command resumes; sets of units that several orders
share are measured once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor

from harness.backbones import encoder_hash
from harness.config import Config
from harness.finetuning import (
    TunedModel,
    read_snapshot,
    tune,
)
from harness.measures import plan_orders
from harness.runs import (
    Inputs,
    Journal,
    is_finished,
    list_snapshots,
    snapshot_folder,
)
from harness.storage import InputError, content_hash
from harness.tracking.graft_measuring import Grafter
from harness.tracking.graft_predictors import gather_predictors
from harness.tracking.graft_records import (
    GraftFiles,
    write_summary,
)
from harness.tracking.graft_summary import (
    N_RANDOM,
    Outcome,
    name_rows,
    summarise,
)
from harness.tracking.graft_units import changed_adapters, changed_units
from harness.tracking.store.tracked_run import TrackedRun

FEWEST_LAYERS = 3  # for the layers alone to be ordered


def measure_grafts(
    config: Config,
    run: Path,
    inputs: Inputs,
    accelerator: Accelerator,
    n_random: int = N_RANDOM,
) -> None:
    """Measure all grafts of a run, and add what follows from them to its results.

    Parameters
    ----------
    config : Config
    run : Path
        A finished run.
    inputs : Inputs
    accelerator : Accelerator
        Its processes share the grafts.
    n_random : int, ≥ 0
        Random orders.

    Raises
    ------
    InputError
        For an unfinished run, one without probes, a method that leaves the backbone as it was, or a file of
        other weights.
    """
    if not is_finished(run):
        raise InputError(f"{run}: found an unfinished run, expected one that was fine-tuned and tracked")
    if not inputs.probes:
        raise InputError(f"{run}: found no probe (probes.tasks), expected one to measure repair with")
    tasks, last = inputs.tasks, list_snapshots(run)[-1]
    model = tune(inputs.backbone, [task.n_classes for task in tasks], config.method, config.seed, tasks)
    pretrained = encoder_hash(inputs.backbone)
    start, end = (_read_state(run, step, model, pretrained) for step in (0, last))
    units = changed_units(model, start, end)
    if not units:
        raise InputError(
            f"{run}: found no weight of the backbone that {config.method.name} has changed, "
            "expected a method that trains the backbone"
        )
    predictors = gather_predictors(config, run, inputs.brains, inputs.backbone, model.merged_backbone(), last)
    layers = [unit for unit in units if unit in inputs.backbone.layers]
    compared = layers if len(layers) >= FEWEST_LAYERS else list(units)
    others = [unit for unit in units if unit not in compared]
    orders = plan_orders(predictors, compared, others, n_random, config.seed)
    parts = {**units, **(adapters := changed_adapters(units, start, end))}
    files = GraftFiles(run, list(parts), content_hash(start, end))
    grafter = Grafter(
        config, inputs, model, start, end, parts, accelerator.device, not accelerator.is_main_process
    )
    singles = [(), tuple(units), *((part,) for part in parts)]
    _measure(grafter, files, accelerator, [*singles, *_prefixes(orders.values())])
    tuned = files.read(())
    repair = {unit: Outcome(files.read((unit,)), tuned).repair for unit in compared}
    orders |= plan_orders({"measured": repair}, compared, others, 0, config.seed)
    _measure(grafter, files, accelerator, list(_prefixes(orders.values())))
    if accelerator.is_main_process:
        summary = summarise(
            files.read, list(units), compared, predictors, orders, config.seed, list(adapters)
        )
        write_summary(run, {"step": last, **summary})
        with Journal(run / "results.jsonl") as journal:
            journal.log(last, name_rows(summary))
        TrackedRun(config, run).forward("FINISHED")
    accelerator.wait_for_everyone()


def _read_state(run: Path, step: int, model: TunedModel, pretrained: str) -> dict[str, Tensor]:
    read_snapshot(snapshot_folder(run, step), model, pretrained)
    return {name: tensor.clone() for name, tensor in model.changing_state().items()}


def _prefixes(orders: Iterable[Sequence[str]]) -> Iterable[tuple[str, ...]]:
    """All sets of units on the way through the orders."""
    return (tuple(order[:place]) for order in orders for place in range(1, len(order) + 1))


def _measure(
    grafter: Grafter, files: GraftFiles, accelerator: Accelerator, wanted: Sequence[Collection[str]]
) -> None:
    """Measure the grafts that are missing; processes share them."""
    missing = {files.path(chosen): tuple(chosen) for chosen in wanted if not files.has(chosen)}
    # all processes must have listed what is missing before one of them writes
    accelerator.wait_for_everyone()
    own = list(missing.values())[accelerator.process_index :: accelerator.num_processes]
    for place, chosen in enumerate(own, 1):
        files.write(grafter.measure(chosen, f"graft {place}/{len(own)}: {_name(chosen)}"))
    accelerator.wait_for_everyone()


def _name(chosen: Sequence[str]) -> str:
    return chosen[0] if len(chosen) == 1 else f"{len(chosen)} layers"
