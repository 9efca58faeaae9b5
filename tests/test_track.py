import json
import shutil

import numpy as np
import pytest
from catalogued import check_rows
from equality import assert_equal
from overrides import SMALL_TRACKING, TINY
from safetensors.numpy import load_file, save_file

from harness.commands.finetune import run
from harness.config.compose import load_config
from harness.finetuning.devices import build_accelerator
from harness.mappings.mapping import load_mapping
from harness.mappings.splits import load_split
from harness.runs.inputs import load_inputs
from harness.runs.journal import read_rows
from harness.runs.layout import (
    evidence_file,
    list_snapshots,
    mapping_folder,
    probes_file,
    run_folder,
    start_folder,
)
from harness.runs.subjects import list_subjects
from harness.storage.errors import InputError
from harness.storage.files import read_json
from harness.tracking import probing
from harness.tracking.curves import metric_curves
from harness.tracking.fitter import Fitter
from harness.tracking.mean_curves import mean_curves
from harness.tracking.store.histories import read_histories
from harness.tracking.tracker import track
from harness.tracking.work_items import (
    WorkItem,
    plan_work,
)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """Track a linear probe: its backbone never changes, so no rewiring may be found."""
    overrides = [*TINY, *SMALL_TRACKING, "method=linear_probe", "finetune.lr=1e-2", "mapping.steps=30"]
    # enough voxels that most regions have five predicted ones, which rewiring needs
    overrides += ["brain.n_voxels=400"]
    config = load_config(
        [
            *overrides,
            f"runs_dir={tmp_path_factory.mktemp('runs')}",
            "mapping.floor_refits=3",
            "finetune.epochs=1",
        ]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run(config)
    return config, run_folder(config)


def copy_run(config, folder, place):
    """Copy a run so that a test may change it."""
    copy = config.model_copy(update={"runs_dir": str(place / "runs")})
    shutil.copytree(folder, run_folder(copy))
    return copy, run_folder(copy)


def rows_of(folder):
    return {(row["name"], row["step"]): row["value"] for row in read_rows(folder / "results.jsonl")[0]}


def test_units_are_the_refits_of_step_0_and_every_snapshot(tracked):
    config, folder = tracked
    (subject,) = list_subjects(config.brain, folder)
    units = plan_work(config, [subject], list_snapshots(folder))
    places = [(0, 1), (0, 2), (0, 3), (0, 0), (1, 0), (2, 0), (3, 0)]
    assert units == [WorkItem(subject, *place) for place in places]
    assert all(unit.mapping.exists() for unit in units)
    assert all(probes_file(folder, step).exists() for step in range(4))
    assert len({unit.seed(config) for unit in units}) == len(units)


def test_every_row_is_finite_and_named_once(tracked):
    _, folder = tracked
    rows, _ = read_rows(folder / "results.jsonl")
    assert len({(row["name"], row["step"]) for row in rows}) == len(rows)
    assert np.isfinite([row["value"] for row in rows]).all()
    names = {row["name"] for row in rows}
    assert {"task/digits/accuracy", "probe/digits/linear_accuracy", "forgetting/shapes/delta_lp"} <= names
    assert "forgetting/digits/delta_lp" not in names  # a change there is learning
    assert {"brain/V1/r2", "rewiring/V4/wasserstein_excess", "alignment/all/hierarchy"} <= names
    assert not any(name.endswith("zero_shot_accuracy") for name in names)  # no text tower


def test_every_row_is_in_the_catalogue(tracked):
    patterns = check_rows(tracked[1])
    assert {"train/loss", "drift/<layer>/cka", "rewiring/<place>/wasserstein_excess_low"} < patterns


def test_unchanged_backbone_does_not_forget_or_rewire(tracked):
    _, folder = tracked
    rows = rows_of(folder)
    for step in (1, 2, 3):
        assert rows["forgetting/shapes/delta_lp", step] == 0
        assert rows["forgetting/shapes/delta_knn", step] == 0
        lows = [value for (name, at), value in rows.items() if at == step and name.endswith("_excess_low")]
        assert len(lows) > 50
        # 2.5 % if each were alone; the places and measures of one fit share its luck
        assert np.mean(np.array(lows) > 0) <= 0.15
        assert rows["collapse/all/collapsed", step] == 0
    assert rows["rewiring/all/wasserstein", 3] > 0  # refits do differ, which is why there is a floor


def test_unchanged_backbone_does_not_drift(tracked):
    _, folder = tracked
    rows = rows_of(folder)
    for step in range(4):
        found = {
            name: value for (name, at), value in rows.items() if at == step and name.startswith("drift/")
        }
        assert {name.split("/")[2] for name in found} >= {
            "cka",
            "cka_unbiased",
            "distance",
            "weight_distance",
        }
        for name, value in found.items():
            if name.endswith(("/cka", "/cka_unbiased")):
                assert value == pytest.approx(1)
            elif not name.startswith("drift/head/"):
                assert value == 0, name
    assert {"drift/stem/weight_distance", "drift/blocks.7/cka", "drift/features/distance"} <= set(found)


def test_drift_needs_no_pass_of_its_own_and_a_resumed_run_finds_the_same(tracked, tmp_path, monkeypatch):
    config, folder = copy_run(*tracked, tmp_path)
    before = read_json(probes_file(folder, 2))
    calls = []
    extract = probing.extract_layer_means
    monkeypatch.setattr(
        probing, "extract_layer_means", lambda *args: calls.append(len(args[2])) or extract(*args)
    )
    # tokens are there: only step 0, which is not measured again, has a pass
    shutil.rmtree(mapping_folder(folder, 2))
    probes_file(folder, 2).unlink()
    run(config)
    assert len(calls) == 1 and read_json(probes_file(folder, 2)) == before
    # probes alone are missing: nothing needs tokens
    calls.clear()
    probes_file(folder, 2).unlink()
    run(config)
    assert len(calls) == 2 and read_json(probes_file(folder, 2)) == before


def test_mlflow_has_the_same_rows(tracked):
    _, folder = tracked
    ((tags, found),) = read_histories(
        f"sqlite:///{folder.parents[1]}/mlflow.db", "default", lambda name: True
    )
    assert tags["backbone"] == "mini_random" and tags["method"] == "linear_probe"
    stored = {(row.name, row.step): row.value for row in found.itertuples(index=False)}
    assert stored == rows_of(folder)


def test_tracking_again_does_nothing_and_restores_what_is_gone(tracked, tmp_path):
    config, folder = copy_run(*tracked, tmp_path)
    journal = (folder / "results.jsonl").read_bytes()
    lost = mapping_folder(folder, 2)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("mappings/*/*")}
    kept = load_mapping(lost)
    for path in lost.iterdir():
        path.unlink()
    lost.rmdir()
    run(config)
    for name in ("layer", "space", "scale", "weights", "r2"):
        np.testing.assert_array_equal(getattr(load_mapping(lost), name), getattr(kept, name))
    changed = {path for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == set(lost.iterdir())
    assert (folder / "results.jsonl").read_bytes() == journal


def test_warm_starts_all_begin_from_one_fit_of_step_0(tracked, tmp_path, monkeypatch):
    config, folder = copy_run(*tracked, tmp_path)
    warm = config.model_copy(update={"mapping": config.mapping.model_copy(update={"warm_steps": 7})})
    calls = []

    def record(data, config, *, seed, start, **options):
        calls.append((config.steps, seed, start))
        return load_mapping(mapping_folder(folder, 1), with_learned=True)

    monkeypatch.setattr("harness.tracking.fitter.fit_mapping", record)
    monkeypatch.setattr("harness.tracking.tracker.write_results", lambda *arguments: None)
    for path in (folder / "mappings").iterdir():
        if path != mapping_folder(folder, 1):
            shutil.rmtree(path)
    track(warm, folder, load_inputs(config, folder), build_accelerator(config.finetune))
    # first a cold fit with its own seed; everything else starts from it, including step 0 and its refits
    assert [steps for steps, *_ in calls] == [30, 7, 7, 7, 7, 7, 7]
    assert len({seed for _, seed, _ in calls}) == 7
    assert calls[0][2] is None
    for *_, start in calls[1:]:
        assert_equal(start, load_mapping(start_folder(folder), with_learned=True))


def test_rows_of_a_snapshot_come_when_it_is_done(tracked, tmp_path, monkeypatch):
    config, folder = copy_run(*tracked, tmp_path)
    # losses and gradients come while training
    trained = ("loss", "lr", "grad_norm", "grad_share")
    expected = {key: value for key, value in rows_of(folder).items() if not key[0].endswith(trained)}
    (folder / "results.jsonl").unlink()
    for path in (folder / "mappings").iterdir():
        shutil.rmtree(path)
    seen = []
    fit = Fitter.fit

    def record(self, item, name):
        journal = folder / "results.jsonl"
        rows = read_rows(journal)[0] if journal.exists() else []
        seen.append((item.step, item.refit, {row["step"] for row in rows if row["name"] == "brain/all/r2"}))
        fit(self, item, name)

    monkeypatch.setattr(Fitter, "fit", record)
    track(config, folder, load_inputs(config, folder), build_accelerator(config.finetune))
    later = [(step, there) for step, _, there in seen if step]
    assert later == [(1, {0}), (2, {0, 1}), (3, {0, 1, 2})]
    # the same as when all are derived together
    assert rows_of(folder) == expected


def test_split_is_kept_with_the_run(tracked):
    _, folder = tracked
    split = load_split(folder / "split.json", np.arange(20))
    assert sorted([*split.train, *split.held_out]) == list(range(20))
    with pytest.raises(InputError, match=r"split\.json: made for other stimuli"):
        load_split(folder / "split.json", np.arange(20) + 1)


def test_broken_evidence_is_named(tracked, tmp_path):
    config, folder = copy_run(*tracked, tmp_path)
    file = evidence_file(folder, 2)
    whole = load_file(file)
    for arrays, message in (
        ({"cross": whole["cross"]}, r"step-000002\.safetensors: not evidence .*loss"),
        ({**whole, "loss": whole["loss"][1:]}, r"step-000002\.safetensors: loss is .* expected"),
        ({**whole, "rsa": whole["rsa"][1:]}, r"step-000002\.safetensors: rsa is .* expected"),
    ):
        save_file(arrays, file)
        with pytest.raises(InputError, match=message):
            run(config)
    (folder / "evidence/controls/controls.json").write_text("{}")
    with pytest.raises(InputError, match=r"controls: not evidence .*layers"):
        run(config)


def test_geometry_stands_beside_evidence(tracked, tmp_path):
    _, folder = copy_run(*tracked, tmp_path)
    rows = rows_of(folder)
    layers = {name.split("/")[-1] for name, _ in rows if name.startswith("selectors/all/layer/")}
    places = {name.split("/")[1] for name, _ in rows if name.startswith("rsa/") and "layer/" in name}
    assert places and "all" not in places
    for place in places:
        for step in (0, 1, 2):
            found = [rows[f"rsa/{place}/layer/{layer}", step] for layer in layers]
            assert -1 <= min(found) < max(found) <= 1
            assert 0 <= rows[f"rsa/{place}/best_depth", step] <= 1
        assert (f"rsa/{place}/noise_ceiling", 1) not in rows


def test_broken_probes_are_named(tracked, tmp_path):
    config, folder = copy_run(*tracked, tmp_path)
    file = probes_file(folder, 1)
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=str(file)):
        run(config)
    file.write_text(json.dumps(json.loads(whole)))
    assert read_json(file)["task"]["accuracy"] == rows_of(folder)["task/digits/accuracy", 1]


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Track two simulated subjects."""
    config = load_config(
        [
            *(*TINY, *SMALL_TRACKING, "method=linear_probe", "finetune.max_steps=1", "brain.subjects=[1,0]"),
            # most regions have five predicted voxels, which rewiring needs
            *("brain.n_voxels=600", "brain.rois=[V1,V4,LO,FFC]", "mapping.steps=30"),
            f"runs_dir={tmp_path_factory.mktemp('runs')}",
        ]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run(config)
    return config, run_folder(config)


def test_subjects_have_splits_and_mappings_of_their_own(several):
    config, folder = several
    subjects = list_subjects(config.brain, folder)
    assert [subject.folder for subject in subjects] == [
        folder / "subjects/subj01",
        folder / "subjects/subj00",
    ]
    units = plan_work(config, subjects, list_snapshots(folder))
    assert len(units) == 2 * (2 + 2)
    assert len({unit.seed(config) for unit in units}) == len(units)
    assert all(unit.mapping.exists() for unit in units)
    assert all((subject.folder / "split.json").exists() for subject in subjects)
    assert not (folder / "mappings").exists() and not (folder / "split.json").exists()
    assert {path.name for path in (folder / "probes").iterdir()} == {"step-000000.json", "step-000001.json"}
    found = read_json(folder / "manifest.json")["fingerprints"]
    assert found["brain"].keys() == found["brain_files"].keys() == {"subj01", "subj00"}
    assert len(set(found["brain"].values())) == 2


def test_plain_rows_are_means_of_the_subjects_rows(several):
    _, folder = several
    rows = rows_of(folder)
    for metric in ("brain/V1/r2", "rewiring/all/wasserstein_excess", "alignment/all/hierarchy"):
        where, measure = metric.rsplit("/", 1)
        one, zero = (rows[f"{where}/{label}/{measure}", 1] for label in ("subj01", "subj00"))
        assert one != zero
        assert rows[metric, 1] == pytest.approx((one + zero) / 2)
        assert rows[f"{metric}_subjects", 1] == 2
        assert rows[f"{metric}_subjects_low", 1] < min(one, zero)
    assert "rewiring/<roi>/wasserstein_excess_subjects_p_fdr" in check_rows(folder)
    # for the backbone, not for a subject
    assert not any(name.startswith(("probe/", "task/", "forgetting/")) and "subj" in name for name, _ in rows)
    # a refit floor is a subject's own; the mean has an interval over subjects
    assert ("rewiring/V1/wasserstein_excess_low", 1) not in rows
    assert ("rewiring/V1/subj01/wasserstein_excess_low", 1) in rows


def test_a_query_has_the_mean_and_every_subject(several):
    _, folder = several
    rows = rows_of(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        curves = metric_curves("rewiring", measure="wasserstein_excess", runs_dir=folder.parents[1])
    assert set(curves["subject"]) == {"all", "subj00", "subj01"}
    mean = mean_curves(curves, ["roi"])
    assert (mean["n"] == 1).all()
    (value,) = mean[mean["roi"] == "V1"]["mean"]
    assert value == rows["rewiring/V1/wasserstein_excess", 1]
    own = mean_curves(curves, ["subject"])  # whole brain only
    assert own.set_index("subject")["mean"]["subj00"] == rows["rewiring/all/subj00/wasserstein_excess", 1]


def test_what_a_subject_lacks_is_done_again_and_nothing_else(several, tmp_path):
    config, folder = copy_run(*several, tmp_path)
    journal = (folder / "results.jsonl").read_bytes()
    lost = mapping_folder(folder / "subjects/subj00", 1)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("subjects/*/**/*") if path.is_file()}
    kept = load_mapping(lost)
    shutil.rmtree(lost)
    probes_file(folder, 1).unlink()
    run(config)
    np.testing.assert_array_equal(load_mapping(lost).layer, kept.layer)
    changed = {path for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == set(lost.iterdir())
    assert probes_file(folder, 1).exists()
    assert (folder / "results.jsonl").read_bytes() == journal


def test_a_split_of_other_stimuli_is_named_before_anything_is_fitted(several, tmp_path):
    config, folder = copy_run(*several, tmp_path)
    path = folder / "subjects/subj00/split.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stimuli": "of others"}))
    with pytest.raises(InputError, match=f"{path}: made for other stimuli"):
        run(config)
