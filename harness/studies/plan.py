"""Plan a study without running it: its runs, their costs and the files they need."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from harness.backbones import locate_checkpoint
from harness.config import (
    BrainConfig,
    Config,
    PythonBackboneConfig,
    SimulatedConfig,
    check_tunable,
    count_classes,
    map_hash,
    one_by_one,
    tasks_in_order,
)
from harness.finetuning import (
    METHODS,
    check_anchor,
    check_division,
    check_tasks,
    count_opened,
    fingerprint_method,
)
from harness.runs import (
    Network,
    describe_network,
    is_finished,
    run_folder,
    run_name,
)
from harness.storage import InputError
from harness.studies.availability import (
    MISSING,
    list_needs,
)
from harness.studies.costs import (
    FitSpeed,
    PlannedRun,
    Speed,
    count_fits,
    count_images_per_step,
    count_start_fits,
    mapping_bytes,
    numbers_kept,
    plan_steps,
    token_bytes,
    tracking_seconds,
    training_bytes,
    tuning_seconds,
)
from harness.studies.launching import count_processes
from harness.studies.plan_table import (
    format_needs,
    format_runs,
)

LEGEND = """\
weights: pretrained and tuned weights, gradients, AdamW's moments and the method's own copies, without
activations. tokens: of one snapshot, or of all for mapping=through_time. disk: snapshots and mappings.
fits: those of step 0 count once for runs with the same backbone, brain, mapping and seed, which share them.
?: unknown before the run."""
ESTIMATE = """
from a few passes of untrained networks, short fits and evidence of noise, without reading, decoding and
fitting probes;
?: the network does not fit in memory, or the mapping is solved in closed form."""


def count_trained(config: Config, network: Network) -> tuple[int, int]:
    """Count the parameters that the method trains, and a snapshot's bytes; unknown classes count as one.

    Raises
    ------
    InputError
        If the method and the backbone do not go together.
    """
    method = METHODS[config.method.name]
    if method.needs_texts:
        if network.n_all == network.n_encoder:
            raise InputError(
                f"method: found {method.name} with backbone {config.backbone.name}, which has no text tower, "
                "expected a contrastive one of open_clip"
            )
        return network.n_all, 4 * network.n_all
    n_classes = tuple(count_classes(task) or 1 for task in tasks_in_order(config.task))
    return count_opened(config.backbone, config.method, n_classes)


def measure_brain_size(config: BrainConfig, read: bool) -> tuple[int, int] | None:
    """Count a subject's stimuli and voxels, from the settings if simulated, else from its files if `read`."""
    if isinstance(config, SimulatedConfig) and config.stimuli is None and config.rois is None:
        return config.n_stimuli, config.n_voxels
    if not read:
        return None
    from harness.brains import load_brain

    brain = load_brain(one_by_one(config)[0])
    return len(brain.stimulus_ids), len(brain.coords)


def plan_run(config: Config, size: tuple[int, int] | None) -> PlannedRun:
    """Plan a run, except for its duration.

    Parameters
    ----------
    config : Config
    size : (n_stimuli, n_voxels) of a subject, or None

    Raises
    ------
    InputError
        For settings that do not go together, a batch that the processes of this machine cannot share, or a
        method's function that cannot be imported.
    """
    check_division(config.finetune, count_processes())
    check_tasks(config.method, [task.name for task in tasks_in_order(config.task)])
    check_anchor(config)
    fingerprint_method(config.method)
    network = describe_network(config.backbone)
    n_trained, stored = count_trained(config, network)
    n_steps, snapshots = plan_steps(config)
    n_fits = None if snapshots is None else count_fits(config, len(snapshots))
    n_snapshots = None if snapshots is None else len(snapshots)
    disk = None
    if snapshots is not None and n_fits is not None and size is not None:
        disk = len(snapshots) * stored + n_fits * mapping_bytes(size[1], network.widths, config.mapping)
    kept = numbers_kept(config.method.name, network.n_encoder, n_trained)
    return PlannedRun(
        run_name(config),
        is_finished(run_folder(config)),
        n_steps,
        None if snapshots is None else len(snapshots),
        n_fits,
        training_bytes(network.n_all, n_trained, kept),
        None if size is None else token_bytes(size[0], network.widths, config.mapping, n_snapshots),
        disk,
        snapshots=None if snapshots is None else len(snapshots) * stored,
    )


class Stopwatch:
    """Times the work of runs, each kind once."""

    def __init__(self) -> None:
        from harness.studies.timing import choose_device

        self.device = choose_device()
        self._begin = time.process_time()
        self._networks: dict[str, Speed | None] = {}
        self._fits: dict[str, FitSpeed | None] = {}
        self._evidence: dict[str, float] = {}

    def speed(self, config: Config, size: tuple[int, int]) -> Speed | None:
        """Measure the speed of a run's work; None: its network does not fit in memory.

        `size` is (n_stimuli, n_voxels) of a subject.
        """
        from harness.studies.timing import (
            fits_in_memory,
            measure_fit,
            measure_layer_evidence,
            measure_network,
        )

        network = describe_network(config.backbone)
        settings = (config.backbone, config.method)
        key = config.finetune.precision + "".join(part.model_dump_json() for part in settings)
        if key not in self._networks:
            n_trained, _ = count_trained(config, network)
            self._networks[key] = (
                measure_network(*settings, config.finetune.precision, self.device)
                if fits_in_memory(network.n_all, n_trained, self.device)
                else None
            )
        speed = self._networks[key]
        if speed is None:
            return None
        widths, mapping = network.widths, config.mapping
        key = f"{widths} {size[1]} {mapping.model_dump_json()}"
        if key not in self._fits:
            self._fits[key] = measure_fit(widths, size[1], mapping, self.device)
        fit = self._fits[key]
        key = f"{widths} {size} {mapping.token_size} {config.evidence.model_dump_json()}"
        if key not in self._evidence:
            self._evidence[key] = measure_layer_evidence(
                widths, size, mapping.token_size, config.evidence, self.device
            )
        return replace(speed, fit=fit, evidence=self._evidence[key], begin=self._begin)


def estimate_seconds(
    config: Config, run: PlannedRun, speed: Speed, n_stimuli: int, from_others: bool = False
) -> float | None:
    """Estimate a run's duration in seconds from the speed of its pieces; None: unknown.

    `from_others`: it takes over step 0 from another run.
    """
    if run.n_steps is None or run.n_snapshots is None or run.n_fits is None:
        return None
    tracking = tracking_seconds(config, speed, n_stimuli, run.n_snapshots, run.n_fits, from_others)
    if tracking is None:
        return None
    tuning = tuning_seconds(speed, run.n_steps, count_images_per_step(config), config.method.name)
    return speed.begin + tuning + tracking


def print_plan(configs: Sequence[Config], measure: bool = True) -> None:
    """Print the plan of a study, without running anything and without network access.

    Parameters
    ----------
    configs : sequence of Config
        Of all runs.
    measure : bool
        Whether to time pieces of the work, which takes a minute or more, and to read brains' files.
    """
    for config in configs:
        check_tunable(config.backbone)
    needs = list_needs(configs)
    missing = {need for need in needs if need.state == MISSING}
    runs, stopwatch = [], Stopwatch() if measure else None
    started: set[str] = set()
    for config in configs:
        no_brain = any(need.what == f"brain {config.brain.name}" for need in missing)
        size = measure_brain_size(config.brain, read=measure and not no_brain)
        run = plan_run(config, size)
        # a run that comes later takes over step 0
        start = map_hash(config)
        from_others = config.reuse and start in started
        if from_others and run.n_fits is not None:
            run = replace(run, n_fits=run.n_fits - count_start_fits(config))
        started.add(start)
        if stopwatch is not None and size is not None and not run.finished:
            speed = stopwatch.speed(config, size)
            if speed is not None:
                seconds = estimate_seconds(config, run, speed, size[0], from_others)
                run = replace(run, seconds=seconds)
        runs.append(run)
    sizes = {
        f"weights of {config.backbone.name}": 4 * describe_network(config.backbone).n_all
        for config in configs
        if not isinstance(config.backbone, PythonBackboneConfig)
        and (config.backbone.checkpoint is None or not locate_checkpoint(config.backbone.checkpoint).exists())
    }
    print(format_runs(runs))
    print()
    print(format_needs(needs, sizes))
    print()
    print(LEGEND)
    if stopwatch is None:
        print("Time was not measured (--plan=quick).")
    else:
        import torch

        machine = f"{stopwatch.device.type}, {torch.get_num_threads()} threads"
        print(f"Time is estimated on this machine ({machine}){ESTIMATE}")
