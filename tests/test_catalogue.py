"""The catalogue of metrics: every name has an entry, and every entry is true."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
from catalogued import MOST_HEADLINES, check_rows
from made_study import make_brain, write_run
from query_speed import list_names

from harness.config.folders import REPOSITORY
from harness.measures.catalogue import (
    CATALOGUE,
    describe,
    is_headline,
    split_name,
    to_markdown,
)
from harness.measures.entries import STAGES
from harness.measures.metric import Kind
from harness.measures.network_entries import SCORINGS, name_auroc
from harness.measures.probes.kinds import PROBE_KINDS
from harness.measures.shift_entries import SHIFT_SCORINGS
from harness.runs.journal import read_rows
from harness.storage.errors import InputError

PATTERNS = [metric.pattern for metric in CATALOGUE]
ANY = (-math.inf, math.inf)
UP = (0.0, math.inf)
FRACTION = (0.0, 1.0)
SIGNED = (-1.0, 1.0)

# name: range, better direction, headline, format
EXPECTED = {
    "train/loss": (UP, "lower", True, "number"),
    "train/lr": (UP, "neither", True, "number"),
    "train/grad_norm": (UP, "neither", True, "number"),
    "train/penalty": (ANY, "neither", True, "number"),
    "task/digits/accuracy": (FRACTION, "higher", True, "number"),
    "task/digits/balanced_accuracy": (FRACTION, "higher", False, "number"),
    "task/digits/auroc": (FRACTION, "higher", True, "number"),
    "task/digits/ece": (FRACTION, "lower", False, "number"),
    "task/digits/auroc_left_out": (UP, "neither", False, "number"),
    "probe/shapes/linear_accuracy": (FRACTION, "higher", True, "number"),
    "probe/shapes/linear_auroc": (FRACTION, "higher", True, "number"),
    "probe/shapes/linear_ece": (FRACTION, "lower", False, "number"),
    "probe/shapes/knn_accuracy": (FRACTION, "higher", False, "number"),
    "probe/shapes/zero_shot_accuracy": (FRACTION, "higher", False, "number"),
    "forgetting/shapes/delta_lp": (SIGNED, "higher", True, "signed"),
    "forgetting/shapes/delta_lp_auroc": (SIGNED, "higher", True, "signed"),
    "forgetting/shapes/delta_zs": (SIGNED, "higher", True, "signed"),
    "forgetting/shapes/delta_knn": (SIGNED, "higher", False, "signed"),
    "probe/imagenet/pretrained_head_accuracy": (FRACTION, "higher", False, "number"),
    "forgetting/imagenet/delta_ph": (SIGNED, "higher", True, "signed"),
    "shift/digits/corruptions/accuracy": (FRACTION, "higher", True, "number"),
    "shift/digits/noise/accuracy": (FRACTION, "higher", True, "number"),
    "shift/digits/fog/accuracy": (FRACTION, "higher", False, "number"),
    "shift/digits/fog/accuracy_5": (FRACTION, "higher", False, "number"),
    "shift/shapes/textures/ece": (FRACTION, "lower", False, "number"),
    "shift/shapes/textures/relative_drop": (ANY, "lower", False, "signed"),
    "shift/shapes/textures/clean_accuracy": (FRACTION, "higher", False, "number"),
    "shift/shapes/textures/n_test": ((1.0, math.inf), "neither", False, "number"),
    "shift/digits/corruptions/corruption_error": (UP, "lower", False, "number"),
    "shift/digits/noise/head_accuracy": (FRACTION, "higher", False, "number"),
    "shift/imagenet/r/zero_shot_accuracy": (FRACTION, "higher", False, "number"),
    "shift/imagenet/r/pretrained_head_relative_drop": (ANY, "lower", False, "signed"),
    "sequence/head/average_accuracy": (FRACTION, "higher", True, "number"),
    "sequence/head/average_auroc": (FRACTION, "higher", True, "number"),
    "sequence/joint/average_accuracy": (FRACTION, "higher", True, "number"),
    "sequence/linear/backward_transfer": (SIGNED, "higher", True, "signed"),
    "sequence/knn/forward_transfer": (SIGNED, "higher", True, "signed"),
    "sequence/knn/forward_transfer_auroc": (SIGNED, "higher", True, "signed"),
    "sequence/zero_shot/transfer": (FRACTION, "higher", False, "number"),
    "sequence/head/forgetting_chaudhry": (SIGNED, "lower", False, "signed"),
    "sequence/head/forgetting_max_all": (FRACTION, "lower", True, "number"),
    "sequence/head/relative_forgetting": (FRACTION, "lower", False, "number"),
    "stability/digits/accuracy": (FRACTION, "higher", True, "number"),
    "stability/digits/auroc": (FRACTION, "higher", True, "number"),
    "stability/digits/before": (FRACTION, "higher", False, "number"),
    "stability/digits/depth": (SIGNED, "lower", True, "signed"),
    "stability/digits/depth_auroc": (SIGNED, "lower", True, "signed"),
    "stability/digits/depth_step": ((1.0, math.inf), "neither", False, "number"),
    "stability/digits/recovery": (FRACTION, "higher", False, "number"),
    "stability/all/min_acc": (FRACTION, "higher", True, "number"),
    "stability/all/wc_acc": (FRACTION, "higher", True, "number"),
    "drift/blocks.3/cka": (FRACTION, "neither", False, "number"),
    "drift/blocks.3/cka_unbiased": (SIGNED, "neither", False, "number"),
    "drift/features/distance": (UP, "neither", False, "number"),
    "drift/stem/weight_distance": (UP, "neither", False, "number"),
    "drift/stem/weight_distance_relative": (UP, "neither", False, "number"),
    "drift/head/grad_norm": (UP, "neither", False, "number"),
    "drift/head/grad_share": (FRACTION, "neither", False, "number"),
    "selectors/all/expected_depth": (FRACTION, "neither", True, "number"),
    "selectors/V1/expected_depth": (FRACTION, "neither", False, "number"),
    "selectors/all/confidence": (FRACTION, "neither", False, "number"),
    "selectors/all/scale": (FRACTION, "neither", False, "number"),
    "selectors/all/layer/blocks.3": (FRACTION, "neither", True, "number"),
    "selectors/high_areas/layer/blocks.3": (FRACTION, "neither", False, "number"),
    "selectors/V1/layer/blocks.3": (FRACTION, "neither", False, "number"),
    "selectors/V1/layer/blocks.3_subjects_low": (ANY, "neither", False, "number"),
    "rewiring/V4/wasserstein": (FRACTION, "neither", False, "number"),
    "rewiring/V4/wasserstein_weighted": (FRACTION, "neither", False, "number"),
    "rewiring/V4/wasserstein_null": (FRACTION, "neither", False, "number"),
    "rewiring/V4/wasserstein_excess": (SIGNED, "neither", True, "signed"),
    "rewiring/V4/wasserstein_excess_low": (ANY, "neither", False, "signed"),
    "rewiring/V4/wasserstein_excess_high": (ANY, "neither", False, "signed"),
    "rewiring/V4/n_predicted": (UP, "neither", False, "number"),
    "rewiring/all/r2_change": (ANY, "higher", True, "signed"),
    "rewiring/all/confidence_change": (SIGNED, "neither", True, "signed"),
    "collapse/all/collapsed": (FRACTION, "lower", True, "number"),
    "collapse/all/probe_fell": (FRACTION, "lower", False, "number"),
    "collapse/all/degenerate": (FRACTION, "lower", False, "number"),
    "collapse/all/not_finite": (FRACTION, "lower", False, "number"),
    "collapse/all/spread": (FRACTION, "neither", False, "number"),
    "collapse/all/effective_rank": ((1.0, math.inf), "neither", False, "number"),
    "verdict/V4/kind": ((0.0, 3.0), "neither", True, "verdict"),
    "verdict/V4/p": (FRACTION, "neither", False, "p"),
    "verdict/V4/r2_before": ((-math.inf, 1.0), "higher", False, "number"),
    "verdict/V4/depth_before": (FRACTION, "neither", False, "number"),
    "verdict/V4/depth_after": (FRACTION, "neither", False, "number"),
    "verdict/V4/r2_after": ((-math.inf, 1.0), "higher", False, "number"),
    "verdict/V4/depth_control": (FRACTION, "neither", False, "number"),
    "verdict/V4/matched_response_noise": (UP, "neither", False, "number"),
    "verdict/V4/matched_token_noise": (UP, "neither", False, "number"),
    "verdict/V4/matched_feature_noise": (UP, "neither", False, "number"),
    "rewiring/V4/wasserstein_excess_subjects": ((1.0, math.inf), "neither", False, "number"),
    "rewiring/V4/wasserstein_excess_subjects_low": (ANY, "neither", False, "signed"),
    "rewiring/V4/wasserstein_excess_subjects_high": (ANY, "neither", False, "signed"),
    "rewiring/all/wasserstein_excess_subjects_p": (FRACTION, "neither", True, "p"),
    "rewiring/V4/wasserstein_excess_subjects_p": (FRACTION, "neither", False, "p"),
    "rewiring/V4/wasserstein_excess_subjects_p_fdr": (FRACTION, "neither", True, "p"),
    "rewiring/V4/depth_shift": (SIGNED, "neither", False, "signed"),
    "rewiring/V4/depth_shift_excess": ((-2.0, 2.0), "neither", False, "signed"),
    "rewiring/V4/jensen_shannon": (FRACTION, "neither", False, "number"),
    "rewiring/V4/top_layer_changed": (FRACTION, "neither", False, "number"),
    "rewiring/V4/confidence_change": (SIGNED, "neither", False, "signed"),
    "rewiring/V4/space_displacement": ((0.0, 2 * math.sqrt(2)), "neither", False, "number"),
    "rewiring/V4/scale_change": (SIGNED, "neither", False, "signed"),
    "rewiring/V4/r2_change": (ANY, "higher", False, "signed"),
    "rewiring/V4/r2_change_excess": (ANY, "higher", False, "signed"),
    "rewiring/V4/r2_change_null": (ANY, "neither", False, "signed"),
    "rewiring/V4/cluster_agreement": ((-0.5, 1.0), "neither", False, "number"),
    "rewiring/V4/principal_angle": ((0.0, math.pi / 2), "neither", False, "number"),
    "alignment/all/hierarchy": (SIGNED, "higher", True, "number"),
    "alignment/all/hierarchy_null_mean": (SIGNED, "neither", False, "number"),
    "alignment/all/hierarchy_null_sd": ((0.0, 2.0), "neither", False, "number"),
    "alignment/all/hierarchy_rois": (SIGNED, "higher", True, "number"),
    "alignment/all/hierarchy_rois_null_sd": ((0.0, 2.0), "neither", False, "number"),
    "alignment/all/hierarchy_rois_p": (FRACTION, "neither", True, "p"),
    "alignment/all/hierarchy_rois_p_moran": (FRACTION, "neither", False, "p"),
    "alignment/all/hierarchy_rois_p_permutation": (FRACTION, "neither", False, "p"),
    "alignment/all/hierarchy_rois_p_smooth": (FRACTION, "neither", False, "p"),
    "alignment/all/slope": (ANY, "higher", True, "signed"),
    "alignment/all/slope_p": (FRACTION, "neither", True, "p"),
    "alignment/all/n_rois": (UP, "neither", False, "number"),
    "alignment/all/n_predicted": (UP, "neither", False, "number"),
    "alignment/all/slope_null_mean": (ANY, "neither", False, "signed"),
    "alignment/all/slope_null_sd": ((0.0, math.inf), "neither", False, "signed"),
    "alignment/all/intercept_low": (ANY, "lower", False, "number"),
    "alignment/all/intercept_high": (ANY, "higher", False, "number"),
    "brain/all/r2": ((-math.inf, 1.0), "higher", True, "number"),
    "brain/V1/r2": ((-math.inf, 1.0), "higher", False, "number"),
    "brain/V1/r2_subjects": ((1.0, math.inf), "neither", False, "number"),
    "brain/V1/ridge_r2": ((-math.inf, 1.0), "higher", False, "number"),
    "brain/V1/r2_normalised": (ANY, "higher", False, "number"),
    "brain/V1/r2_normalised_voxels": (UP, "neither", False, "number"),
    "brain/V1/correlation": (SIGNED, "higher", False, "number"),
    "graft/blocks.3/repair": (SIGNED, "higher", False, "signed"),
    "graft/blocks.3/repair_share": (ANY, "higher", False, "number"),
    "graft/blocks.3/task_lost": (SIGNED, "lower", False, "signed"),
    "graft/blocks.3/r2_regained": (ANY, "higher", False, "signed"),
    "graft/blocks.3/map": (FRACTION, "neither", False, "number"),
    "graft/blocks.3/weight_distance": (UP, "neither", False, "number"),
    "graft/blocks.3/cka_lost": ((0.0, 2.0), "neither", False, "number"),
    "graft/blocks.3/cka_added": ((-2.0, 2.0), "neither", False, "number"),
    "graft/blocks.3/gradient_share": (FRACTION, "neither", False, "number"),
    **{
        f"graft/all/rho_{name}": (SIGNED, "neither", True, "signed")
        for name in ("map", "weight_distance", "cka_lost", "cka_added", "gradient_share")
    },
    **{
        f"graft/all/rho_given_depth_{name}": (SIGNED, "neither", False, "signed")
        for name in ("map", "weight_distance", "cka_lost", "cka_added", "gradient_share")
    },
    **{
        f"graft/all/p_{name}": (FRACTION, "neither", name == "map", "p")
        for name in ("map", "weight_distance", "cka_lost", "cka_added", "gradient_share")
    },
    **{
        f"graft/all/area_{name}": (SIGNED, "neither", False, "signed")
        for name in (
            *("map", "weight_distance", "cka_lost", "cka_added", "gradient_share"),
            *("map_reversed", "measured", "random"),
        )
    },
    "selectors/V1/velocity": (UP, "neither", False, "number"),
    "selectors/V1/change_step": (UP, "neither", False, "number"),
    "rsa/V1/layer/blocks.3": (SIGNED, "neither", False, "number"),
    "rsa/V1/best_depth": (FRACTION, "neither", False, "number"),
    "rsa/V1/noise_ceiling": (FRACTION, "neither", False, "number"),
    "rsa/V1/group_ceiling_lower": (SIGNED, "neither", False, "number"),
    "rsa/V1/group_ceiling_upper": (SIGNED, "neither", False, "number"),
    "rsa/all/layers_agreement": (SIGNED, "neither", True, "number"),
    "rsa/all/regions_agreement": (SIGNED, "neither", True, "number"),
    "rsa/all/n_rois": ((4.0, math.inf), "neither", False, "number"),
    "evidence/V1/layer/blocks.3": (FRACTION, "neither", False, "number"),
    "verdict/V1/rewired": (FRACTION, "neither", False, "number"),
    "verdict/V1/preferred_before": (FRACTION, "neither", False, "number"),
    "verdict/V1/preferred_after": (FRACTION, "neither", False, "number"),
}


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items(), ids=EXPECTED)
def test_an_entry(name: str, expected: tuple[tuple[float, float], str, bool, str]) -> None:
    metric = describe(name)
    assert ((metric.low, metric.high), metric.better, is_headline(name), metric.form) == expected


def test_every_measure_is_among_them() -> None:
    """Except measures of AUROC, which mirror those of accuracy, and probe scores, which are alike."""
    own = {metric.pattern for metric in CATALOGUE if not metric.ending and metric.stage != "probe"}
    missing = own - {describe(name).pattern for name in EXPECTED}
    # other ways to score under a shift mirror the linear probe, and severities each other
    prefixes = "|".join(prefix for prefix, _ in SHIFT_SCORINGS.values() if prefix)
    for pattern in [one for one in missing if one.startswith("shift/")]:
        metric = describe(pattern)
        measure = re.sub(f"^({prefixes})", "", metric.measure)
        like = describe(f"shift/<task>/<shift>/{re.sub('_[1-5]$', '', measure)}")
        for field in ("low", "high", "better", "form"):
            assert getattr(metric, field) == getattr(like, field), pattern
        missing.remove(pattern)
    assert all(pattern.endswith("_auroc") for pattern in missing)
    for pattern in missing:
        auroc, accuracy = (
            describe(one.replace("<scoring>", "head")) for one in (pattern, pattern[: -len("_auroc")])
        )
        for field in ("low", "high", "better", "headline", "form", "compared", "code", "source"):
            assert getattr(auroc, field) == getattr(accuracy, field), pattern


@pytest.mark.parametrize("kind", PROBE_KINDS, ids=lambda kind: kind.name)
def test_scores_of_a_probe_are_those_of_a_head(kind) -> None:
    for metric in CATALOGUE:
        if metric.stage == "task":
            of_probe = describe(f"probe/shapes/{kind.prefix}{metric.measure}")
            assert (of_probe.low, of_probe.high, of_probe.better, of_probe.unit) == (
                metric.low,
                metric.high,
                metric.better,
                metric.unit,
            )


def test_tails() -> None:
    """Rewiring raises distances and lowers agreement; signed measures may do either."""
    tails = {
        metric.measure: metric.tail for metric in CATALOGUE if metric.stage == "rewiring" and metric.tail
    }
    signed = ("depth_shift", "confidence_change", "scale_change", "r2_change")
    distances = (
        "wasserstein",
        "jensen_shannon",
        "top_layer_changed",
        "space_displacement",
        "principal_angle",
    )
    expected = dict.fromkeys(signed, "two-sided") | dict.fromkeys(distances, "greater")
    expected["cluster_agreement"] = "less"
    # the mean excess over subjects is tested on the same side
    assert tails == expected | {f"{measure}_excess": side for measure, side in expected.items()}
    assert all(metric.tail is None for metric in CATALOGUE if metric.stage != "rewiring")


def test_what_rows_say_of_several_subjects() -> None:
    found = {
        name: describe(name).over_subjects
        for name in (
            "task/digits/accuracy",
            "drift/stem/cka",
            "rewiring/V1/wasserstein",
            "rewiring/V1/wasserstein_weighted",
            "rewiring/V1/wasserstein_null",
            "rewiring/V1/wasserstein_excess",
            "rewiring/V1/wasserstein_excess_low",
            "rewiring/V1/wasserstein_excess_high",
            "alignment/all/hierarchy",
            "alignment/all/hierarchy_null_mean",
            "alignment/all/hierarchy_null_sd",
            "alignment/all/slope",
            "alignment/all/slope_null_mean",
            "alignment/all/slope_null_sd",
            "brain/V1/r2",
            "selectors/V1/scale",
        )
    }
    assert list(found.values()) == [
        *("nothing", "nothing", "interval", "interval", "mean", "test"),
        *("nothing", "nothing"),
        *("interval", "mean", "mean", "interval", "mean", "mean", "interval", "interval"),
    ]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("rewiring/V4/wasserstin", "rewiring/V4/wasserstein"),
        ("rewiring/all/wasserstein_excess_subjects_p_fdr", "rewiring/all/wasserstein_excess_subjects_p"),
        ("rewiring/all/cluster_agreement", None),
        ("alignment/V1/hierarchy", "alignment/all/hierarchy"),
        ("sequence/hed/average_accuracy", "sequence/head/average_accuracy"),
        ("brain/V1/subj01/r2_subjects", "brain/V1/r2_subjects"),
        ("task/digits/subj01/accuracy", "task/digits/accuracy"),
        ("forgetting/shapes/delta_lpp", "forgetting/shapes/delta_lp"),
        ("wise_ft.brain/V1/r3", "wise_ft.brain/V1/r2"),
        ("wise_ft.train/loss", None),
        ("wise_ft.sequence/head/average_accuracy", "sequence/head/average_accuracy"),
        ("brain/r2", None),
        ("brain", None),
        ("", None),
        ("brain/V1/a/b/r2", None),
        ("train/all/loss", "train/loss"),
    ],
)
def test_a_name_that_does_not_exist_gets_the_nearest(name: str, nearest: str | None) -> None:
    with pytest.raises(InputError) as error:
        describe(name)
    message = str(error.value)
    assert message.startswith(f"unknown metric {name!r}") and "\n" not in message
    assert f"did you mean {name!r}" not in message
    if nearest is not None:
        assert message.endswith(f"did you mean {nearest!r}?")


def test_the_nearest_of_a_misspelt_name_exists() -> None:
    """Every suggestion can be described, unless a region or task has to be filled in."""
    for name in (
        "rewiring/V1/depth",
        "wise_ft.task/digits/acc",
        "sequence/knn/forget",
        "selectors/all/depth",
    ):
        with pytest.raises(InputError) as error:
            describe(name)
        _, _, suggested = str(error.value).partition("did you mean ")
        assert describe(suggested.strip("'?"))


def test_parts_of_a_name() -> None:
    assert split_name("train/loss") == ("train", "all", "loss", None, False, None)
    assert split_name("brain/V1/r2") == ("brain", "V1", "r2", None, False, None)
    assert split_name("brain/V1/subj01/r2") == ("brain", "V1", "r2", "subj01", False, None)
    assert split_name("wise_ft.brain/V1/subj01/r2") == ("brain", "V1", "r2", "subj01", True, None)
    assert split_name("shift/digits/noise/ece") == ("shift", "digits", "ece", None, False, "noise")


def test_a_prefix_and_a_subject_do_not_change_the_entry() -> None:
    assert describe("wise_ft.rewiring/V1/subj01/wasserstein_null") is describe("rewiring/V1/wasserstein_null")
    for name in ("brain/all/r2", "rewiring/V1/wasserstein_excess", "verdict/V1/kind"):
        assert is_headline(name)
        where, measure = name.rsplit("/", 1)
        assert not is_headline(f"{where}/subj01/{measure}")
    # from the curve over α: whole brain and tasks
    assert is_headline("wise_ft.brain/all/r2") and is_headline("wise_ft.forgetting/shapes/delta_lp")
    assert is_headline("wise_ft.rewiring/all/wasserstein_excess")
    assert not is_headline("wise_ft.rewiring/V1/wasserstein_excess")


def test_names_are_unique_and_ranges_are_not_empty() -> None:
    assert len(set(PATTERNS)) == len(PATTERNS)
    assert all(metric.low < metric.high for metric in CATALOGUE)
    assert all(metric.title and metric.definition.endswith(".") for metric in CATALOGUE)
    assert tuple(STAGES) == get_args(Kind) == tuple(dict.fromkeys(metric.stage for metric in CATALOGUE))


def test_a_value_may_leave_its_range_by_rounding_only() -> None:
    metric = describe("rewiring/V1/wasserstein")
    assert metric.contains(0.0) and metric.contains(1.0) and metric.contains(1 + 1e-7)
    assert not metric.contains(-1e-5) and not metric.contains(1 + 1e-5) and not metric.contains(math.nan)


@pytest.mark.parametrize("code", sorted({metric.code for metric in CATALOGUE}))
def test_code_is_where_it_is_said_to_be(code: str) -> None:
    parts = code.split(".")
    for n_parts in range(len(parts) - 1, 1, -1):
        if (REPOSITORY / "/".join(parts[:n_parts])).with_suffix(".py").exists():
            assert callable(reduce(getattr, parts[n_parts:], import_module(".".join(parts[:n_parts]))))
            return
    pytest.fail(f"{code}: no such module")


def test_kinds_of_probe() -> None:
    assert list(SCORINGS) == ["head", "joint", "linear", "knn", "zero_shot", "pretrained_head"]
    for kind in PROBE_KINDS:
        assert callable(import_module(f"harness.measures.probes.{kind.name}").probe)
        change = describe(f"forgetting/shapes/{kind.delta}")
        assert change.title == kind.symbol and kind.definition in change.definition
        assert change.compared == (("end",) if kind.in_tables else ())
    assert [kind.name for kind in PROBE_KINDS if kind.in_tables] == ["linear", "zero_shot", "pretrained_head"]
    assert [kind.name for kind in PROBE_KINDS if kind.on_task] == ["linear"]
    assert name_auroc("delta_lp") == "delta_lp_auroc"
    assert name_auroc("average_accuracy") == "average_auroc"


def test_the_benchmark_of_queries_makes_names_that_exist() -> None:
    names = list_names()
    assert len(names) > 1000
    for name in names:
        assert describe(name).pattern


def test_the_page_is_current() -> None:
    page = REPOSITORY / "docs" / "metrics.md"
    assert page.read_text(encoding="utf-8") == to_markdown(), (
        "python -m harness.measures.catalogue > docs/metrics.md"
    )


def test_the_page_has_every_measure_and_every_ending() -> None:
    page = to_markdown()
    for metric in CATALOGUE:
        assert (
            f"| `{metric.ending}` |" if metric.ending.count("_") == 1 else metric.pattern.split("/")[0]
        ) in page
        if not metric.ending:
            (line,) = [line for line in page.splitlines() if line.startswith(f"| `{metric.pattern}` |")]
            assert f"| {metric.better} |" in line and f"`{metric.code}`" in line
    assert "every place: `_excess`, `_excess_subjects_p_fdr`; whole brain: `_excess_subjects_p`" in page


def test_the_catalogue_is_imported_without_torch() -> None:
    modules = "harness.measures.catalogue, harness.tracking.queries, harness.commands.query"
    command = f"import sys; import {modules}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize("overrides", [[], ["brain.subjects=[4,5,6]"]], ids=["one subject", "three subjects"])
def test_headlines_of_a_brain_of_many_regions_are_few(overrides: list[str], tmp_path: Path) -> None:
    settings = [f"runs_dir={tmp_path}", "study.name=many", "mapping.floor_refits=2", *overrides]
    folder = write_run(settings, make_brain(32, 8), steps=(0, 8))
    patterns = check_rows(folder)
    assert ("rewiring/<roi>/wasserstein_excess_subjects_p_fdr" in patterns) == bool(overrides)
    names = {row["name"] for row in read_rows(folder / "results.jsonl")[0]}
    headlines = set(filter(is_headline, names))
    assert 32 < len(headlines) <= MOST_HEADLINES < len(names)
    assert {"brain/all/r2", "alignment/all/hierarchy", "rewiring/V32/wasserstein_excess"} < headlines
    assert {"task/digits/accuracy", "probe/shapes/linear_accuracy", "forgetting/shapes/delta_lp"} < headlines
