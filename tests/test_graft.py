"""Graft and repair: hand-made numbers with known answers; units of real networks; tables and figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_backbones import register_small

from harness.backbones.timm_backbone import load_timm
from harness.config.method import FullConfig, LoraConfig
from harness.finetuning.methods.tuned import tune
from harness.mappings.frozen_reading import FrozenReading
from harness.mappings.layer_evidence import Evidence
from harness.mappings.splits import Split
from harness.measures.controls import Controls, Degraded
from harness.measures.graft import (
    added_drift,
    average_gradients,
    changed_shares,
    curve_area,
    foretell,
    plan_orders,
    repair_share,
)
from harness.measures.image_bootstrap import Change, delta_interval, mean_change_interval
from harness.measures.per_image import Hits
from harness.reporting.figures.grafts import draw_grafts
from harness.reporting.grafts import Grafted, format_grafts, write_tables, write_verdict
from harness.tracking.graft_records import Measured
from harness.tracking.graft_summary import Outcome, name_rows, summarise
from harness.tracking.graft_units import changed_adapters, changed_units, graft, name_units

# pure measures


def make_evidence(*errors: tuple[float, float]) -> Evidence:
    """Evidence of regions whose layers have these mean squared errors, independent of each other."""
    loss = np.tile(np.array(errors), (10, 1, 1))
    cross = np.stack([np.diag(each) for each in errors])
    return Evidence(loss, cross, np.ones((10, 2)), np.ones((2, 2)))


def test_the_map_is_the_change_of_stacked_weights_weighted_over_regions() -> None:
    # of independent errors g, stacked weights are (1/g) / Σ(1/g): 2/3 and 1/3, then the reverse
    controls = Controls(make_evidence((0.4, 0.8), (0.4, 0.8)), {})
    after = make_evidence((0.8, 0.4), (0.4, 0.8))
    weights = np.array([3.0, 1.0])
    np.testing.assert_allclose(changed_shares(controls, after, weights), [0.25, 0.25], atol=1e-4)
    # without any ceiling, regions count alike
    np.testing.assert_allclose(changed_shares(controls, after, 0 * weights), [1 / 6, 1 / 6], atol=1e-4)


def test_a_change_between_two_controls_is_none() -> None:
    before, after = make_evidence((0.4, 0.8)), make_evidence((0.4, 0.4))
    for errors, expected in (((0.8, 0.4), 0.0), ((0.4, 0.6), 0.1)):
        other = make_evidence(errors)
        noise = Degraded(np.stack([other.loss] * 5), np.stack([other.cross] * 5), np.zeros((5, 1, 2)), 1.0)
        # weights 1/2, 1/2 against 2/3 of response noise, and 1/3 or 3/5 of token noise
        found = changed_shares(Controls(before, {"token_noise": noise}), after, np.ones(1))
        np.testing.assert_allclose(found, [expected] * 2, atol=1e-4)


def test_drift_that_a_layer_adds() -> None:
    assert added_drift([0.1, 0.4, 0.3]) == pytest.approx([0.1, 0.3, -0.1])


def test_orders() -> None:
    predictors = {"map": {"a": 0.1, "b": 0.3, "c": 0.1}, "weight_distance": {"a": 1.0, "stem": 2.0}}
    found = plan_orders(predictors, ["a", "b", "c"], ["stem"], 2, seed=0)
    assert list(found) == ["map", "map_reversed", "random_1", "random_2"]  # a rival without b gives no order
    assert found["map"] == ("b", "a", "c", "stem")
    assert found["map_reversed"] == ("c", "a", "b", "stem")
    more = plan_orders(predictors, ["a", "b", "c"], ["stem"], 5, seed=0)
    assert all(more[name] == order for name, order in found.items())
    assert all(sorted(order[:3]) == ["a", "b", "c"] and order[3] == "stem" for order in more.values())
    assert len({more[f"random_{number}"] for number in range(1, 6)}) > 1


def test_area_share_and_gradients() -> None:
    assert curve_area([0.0, 0.2, 0.2]) == pytest.approx(0.15)
    assert repair_share(0.1, -0.4, -0.01) == pytest.approx(0.25)
    assert repair_share(0.1, -0.4, 0.01) is None
    # 15 steps at 0.2 and 60 at 0.7
    assert average_gradients({75: {"a": 0.7}, 15: {"a": 0.2}}) == {"a": pytest.approx(0.6)}
    assert average_gradients({}) == {}


def test_foretold_repair() -> None:
    found = foretell([1.0, 2.0, 3.0, 4.0], [0.0, 0.1, 0.1, 0.5])
    assert found is not None and found.first
    assert found.rho == pytest.approx(0.9486833)
    # a predictor that rises with depth says nothing beyond it
    assert (found.rho_given_depth, found.p, found.smallest_p) == (0, 1, 1)
    other = foretell([2.0, 4.0, 1.0, 5.0, 3.0], [0.2, 0.5, 0.1, 0.4, 0.3])
    assert other is not None and not other.first and other.rho == pytest.approx(0.9)
    # ranks less their line on depth, by hand
    hand = np.array([[-0.4, 1.3, -2.0, 1.7, -0.6], [-0.8, 2.1, -2.0, 0.9, -0.2]])
    assert other.rho_given_depth == pytest.approx(np.corrcoef(hand)[0, 1])
    assert 2 / 120 <= other.smallest_p <= other.p < 0.2
    assert foretell([1.0, 2.0], [0.0, 1.0]) is None
    assert foretell([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]) is None


def test_the_interval_of_a_mean_over_probes() -> None:
    rng = np.random.default_rng(0)
    changes = [
        Change(Hits(rng.random(200) < 0.8), Hits(rng.random(200) < 0.6), images) for images in ("a", "b")
    ]
    width = {}
    for name, chosen in (("one", changes[:1]), ("two", changes), ("same", [changes[0]] * 2)):
        ends = mean_change_interval(chosen)
        assert ends is not None
        width[name] = ends[1] - ends[0]
    single = delta_interval(changes[0])
    assert single is not None and width["one"] == pytest.approx(single[1] - single[0])
    assert width["two"] == pytest.approx(width["one"] / 2**0.5, rel=0.1)
    # probes of the same images are drawn together
    assert width["same"] == pytest.approx(width["one"], rel=0.05)


# the frozen reading


def test_a_frozen_reading_loses_what_moved_to_other_channels() -> None:
    generator = torch.Generator().manual_seed(0)
    layers = [5 + torch.randn(120, 6, generator=generator), torch.randn(120, 4, generator=generator)]
    layers[1][:, 0] = 2.0  # constant
    responses = (layers[0] @ torch.randn(6, 3, generator=generator)).numpy()
    train, held_out = np.arange(80), np.arange(80, 120)
    reading = FrozenReading(
        [layer[train] for layer in layers], responses[train], Split(train, held_out), seed=0
    )
    tokens, truth = [layer[held_out] for layer in layers], responses[held_out]
    assert reading.score(tokens, truth).min() > 0.95
    assert reading.score([tokens[0].flip(1), tokens[1]], truth).max() < 0.9
    assert reading.score([tokens[0], 7 * tokens[1]], truth).min() > 0.9


# units


def test_units_of_stages_with_batch_statistics() -> None:
    backbone = load_timm(register_small("resnet"), None, 0)
    units = name_units(backbone)
    assert list(dict.fromkeys(units.values())) == ["stem", "layer1", "layer2", "layer3", "layer4"]
    assert units["bn1.running_mean"] == "stem"
    assert units["layer2.0.bn1.running_var"] == units["layer2.0.conv1.weight"] == "layer2"
    names = {name for name, _ in backbone.encoder.named_parameters()}
    assert units.keys() == names | {name for name, _ in backbone.encoder.named_buffers()}


def test_a_graft_changes_its_unit_only() -> None:
    backbone = load_timm("test_vit", None, 0)
    model = tune(backbone, 3, FullConfig(), 0)
    start = {name: part.clone() for name, part in model.changing_state().items()}
    end = {name: part + 1 if ".blocks.2." not in name else part.clone() for name, part in start.items()}
    units = changed_units(model, start, end)
    assert list(units) == ["stem", *(f"blocks.{place}" for place in (0, 1, 3, 4, 5))]
    found = graft(start, end, units, ["blocks.3"])
    back = {name for name in end if torch.equal(found[name], start[name])}
    assert back == {name for name in end if ".blocks.2." in name or ".blocks.3." in name}
    assert torch.equal(found["head.weight"], end["head.weight"])
    whole = graft(start, end, units, units)
    assert {name for name in whole if not torch.equal(whole[name], start[name])} == {
        "head.weight",
        "head.bias",
    }


def test_a_graft_of_lora_switches_adapters_off() -> None:
    backbone = load_timm("test_vit", None, 0)
    model = tune(backbone, 3, LoraConfig(rank=2), 0)
    start = {name: part.clone() for name, part in model.changing_state().items()}
    generator = torch.Generator().manual_seed(1)
    end = {name: part + 0.1 * torch.randn(part.shape, generator=generator) for name, part in start.items()}
    units = changed_units(model, start, end)
    assert list(units) == list(backbone.layers)
    model.load_changing_state(graft(start, end, units, ["blocks.1"]))
    merged = model.merged_backbone().encoder.state_dict()
    for name, tensor in backbone.encoder.state_dict().items():
        if name.endswith("attn.qkv.weight"):
            same = torch.allclose(merged[name], tensor, atol=1e-7)
            assert same == name.startswith("blocks.1."), name


# summaries


def make_measured(units: tuple[str, ...], right: int, task: int, r2: float) -> Measured:
    """A network with so many of 100 images right in a probe and on the task."""

    def record(n_right: int, scoring: str, images: str) -> dict[str, object]:
        return {"n": 100, "hash": images, "right": {scoring: Hits(np.arange(100) < n_right).encode()}}

    images = {"shapes": record(right, "linear", "a"), "digits": record(task, "head", "b")}
    probe, scores = {"linear_accuracy": right / 100}, {"accuracy": task / 100}
    return Measured(units, {"shapes": probe}, {"digits": scores}, images, {"all": r2})


UNITS = ("stem", "a", "b", "c")
PREDICTED = {
    "map": {"a": 0.1, "b": 0.3, "c": 0.2},
    "weight_distance": {"stem": 9.0, "a": 0.3, "b": 0.2, "c": 0.1},
}


def make_summary() -> dict[str, object]:
    """Fine-tuning has forgotten 40 of 100 images: b gives back 20, c 10, a 5 and the stem 5."""
    worth = {"stem": 5.0, "a": 5.0, "b": 20.0, "c": 10.0}

    def read(chosen: tuple[str, ...]) -> Measured:
        gained = round(sum(worth[unit] for unit in chosen))
        return make_measured(tuple(chosen), 50 + gained, 90 - len(chosen), 0.1 + gained / 1000)

    orders = plan_orders(PREDICTED, ["a", "b", "c"], ["stem"], 5, 0)
    orders |= plan_orders({"measured": worth}, ["a", "b", "c"], ["stem"], 0, 0)
    return summarise(read, UNITS, ["a", "b", "c"], PREDICTED, orders, 0)


def test_a_summary_has_the_numbers_of_its_grafts() -> None:
    summary, rows = make_summary(), name_rows(make_summary())
    assert rows["graft/b/repair"] == pytest.approx(0.2) and rows["graft/all/repair"] == pytest.approx(0.4)
    assert rows["graft/b/repair_low"] < 0.2 < rows["graft/b/repair_high"]
    assert rows["graft/b/repair_share"] == pytest.approx(0.5)
    assert rows["graft/c/task_lost"] == pytest.approx(0.01)
    assert rows["graft/all/task_lost"] == pytest.approx(0.04)
    assert rows["graft/a/r2_regained"] == pytest.approx(0.005)
    assert rows["graft/a/map"] == 0.1 and rows["graft/stem/weight_distance"] == 9.0
    assert "graft/stem/map" not in rows
    assert rows["graft/all/rho_map"] == rows["graft/all/rho_given_depth_map"] == pytest.approx(1)
    # with three layers, every order is a perfect one once depth is taken off
    assert rows["graft/all/p_map"] == 1
    assert rows["graft/all/rho_weight_distance"] == pytest.approx(-0.5)
    assert rows["graft/all/rho_given_depth_weight_distance"] == 0
    # 0, 20, 30, 35 of 100, the stem does not count
    assert rows["graft/all/area_map"] == rows["graft/all/area_measured"] == pytest.approx(0.225)
    assert rows["graft/all/area_map_reversed"] == pytest.approx((0.025 + 0.1 + 0.25) / 3)
    assert rows["graft/all/area_map_reversed"] <= rows["graft/all/area_random"] <= 0.225
    assert summary["orders"]["map"]["probes"]["shapes"] == pytest.approx([0, 0.2, 0.3, 0.35, 0.4])
    assert summary["units"]["b"]["probes"]["shapes"]["linear"]["repair"] == pytest.approx(0.2)
    assert summary["foretold_r2"]["map"]["rho"] == pytest.approx(1)


def test_adapters_are_grafted_alone_unless_they_are_a_layer() -> None:
    names = [
        f"backbone.encoder.blocks.{layer}.{module}.lora_{factor}.default.weight"
        for layer, modules in ((0, ("attn.qkv", "mlp.fc1")), (1, ("attn.qkv",)))
        for module in modules
        for factor in "AB"
    ]
    start = {name: torch.zeros(2) for name in names}
    end = {name: torch.ones(2) for name in names}
    units = {"blocks.0": tuple(names[:4]), "blocks.1": tuple(names[4:])}
    expected = {"blocks.0.attn.qkv": tuple(names[:2]), "blocks.0.mlp.fc1": tuple(names[2:4])}
    assert changed_adapters(units, start, end) == expected
    del expected["blocks.0.mlp.fc1"]
    unchanged = end | {name: start[name] for name in names[2:4]}
    assert changed_adapters(units, start, unchanged) == expected
    assert changed_adapters({"stem": ("backbone.encoder.patch_embed.weight",)}, start, end) == {}


def test_an_outcome_without_brain_has_no_r2() -> None:
    one = make_measured((), 50, 90, 0.1)
    bare = Measured(one.units, one.probe, one.task, one.images)
    assert Outcome(bare, bare).r2_regained is None and Outcome(bare, bare).repair == 0


def test_tables_and_words() -> None:
    summary = make_summary()
    words = write_verdict(summary)
    assert words.startswith("Mean Δ_LP over probes −0.400 [") and "b repairs most, +0.200 [" in words
    assert "50% of what was forgotten. Of 3 layers, 2 repair significantly alone" in words
    assert words.endswith("does not foretell repair (given depth, ρ +1.000, p 1.000).")
    foretold, units = write_tables(summary)
    cells = ["map of rewiring", "+1.000", "+1.000", "1.000", "1.000", "yes", "+0.225"]
    assert foretold["rows"][0][:7] == cells
    assert all(len(row) == len(table["headings"]) for table in (foretold, units) for row in table["rows"])
    row = dict(zip(units["headings"], units["rows"][2], strict=True))
    assert (row["pretrained weights in"], row["of forgotten"], row["repair, shapes"]) == (
        "b",
        "50%",
        "+0.200",
    )
    text = format_grafts(summary)
    assert "map of rewiring" in text and max(map(len, text.splitlines()[2:])) <= 120
    summary["forgotten"]["high"] = 0.01  # type: ignore[index]
    assert "nothing significant was forgotten" in write_verdict(summary)


def test_figures_draw_what_the_summary_has() -> None:
    figure = draw_grafts([Grafted("mini", "#0173b2", make_summary())])
    bars, points, curves = figure.axes
    assert [bar.get_height() for bar in bars.patches] == pytest.approx([0.05, 0.05, 0.2, 0.1])
    assert {text.get_text() for text in points.texts} == {"a", "b", "c"}
    drawn = [line.get_ydata() for line in curves.lines]
    assert any(len(one) == 4 and np.allclose(one, [0, 0.2, 0.3, 0.35]) for one in drawn)
