from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_claim import (
    BACKBONES,
    PLAN,
    make_rows,
    write_plan,
    write_planned_run,
    write_study,
)

from harness.commands import claim as command
from harness.commands.finetune import run
from harness.config.claim import read_plan
from harness.config.compose import load_config
from harness.measures.claim import ClaimRun, judge_claim
from harness.reporting.claim_page import (
    describe_plan,
    write_claim,
    write_power,
    write_verdict,
)
from harness.reporting.claim_runs import read_planned_runs
from harness.runs.claim_plan import bind_to_plan
from harness.storage.errors import InputError
from harness.storage.files import read_json, write_json

# H falls and forgetting grows in this order
SCORES = {name: 0.2 - 0.02 * place for place, name in enumerate(BACKBONES)}
FORGET = {name: -0.05 * (place + 1) for place, name in enumerate(BACKBONES)}


# the plan


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "plan.yaml")
    text = (tmp_path / "plan.yaml").read_text()
    (tmp_path / "other.yaml").write_text(f"# a comment\n{text}\nlevel: 0.75\n")
    assert read_plan(tmp_path / "other.yaml").hash == plan.hash
    assert re.fullmatch("[0-9a-f]{64}", plan.hash)
    for name, value in (("level", 0.5), ("alpha", 0.01), ("seeds", [0, 1]), ("tasks", ["digits"])):
        assert write_plan(tmp_path / "changed.yaml", **{name: value}).hash != plan.hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levle": 0.5}, r"unknown setting 'levle': .*did you mean 'level'"),
        ({"tasks": None}, r"tasks: found nothing, expected tasks, each fine-tuned on"),
        ({"level": 1.0}, r"level: found 1.0, expected less than 1"),
        ({"seeds": ["0"]}, r"seeds.0: found \"0\", expected a valid integer"),
        ({"permutations": 500}, r"permutations: found 500, expected greater than or equal to 10000"),
        ({"score": "brain/all/r2"}, r"score: found \"brain/all/r2\", expected 'alignment/all/slope'"),
        ({"probes": ["digits"]}, r"found digits in tasks and in probes"),
        ({"seeds": [1, 1]}, r"found seeds \[1, 1\], expected each once"),
        ({"backbones": {"a": "S", "b": "S"}}, r"backbones: found .*expected a collection with at least 4"),
    ],
)
def test_what_is_wrong_with_a_plan_is_one_line(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as failure:
        write_plan(tmp_path / "plan.yaml", **changes)
    assert "\n" not in str(failure.value)
    assert str(failure.value).startswith(str(tmp_path / "plan.yaml"))


def test_files_that_are_no_plan(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_plan(tmp_path / "absent.yaml")
    for text, message in (("a: [", "not valid YAML"), ("- digits", "expected settings of a plan")):
        (tmp_path / "plan.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            read_plan(tmp_path / "plan.yaml")


def test_the_check_says_what_six_backbones_can_show(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    plan = write_plan(tmp_path / "plan.yaml", backbones=dict.fromkeys(BACKBONES, "S"))
    command.main([str(tmp_path / "plan.yaml"), "--check"])
    said = capsys.readouterr().out
    assert said.strip() == describe_plan(plan)
    assert f"plan {plan.hash}\n6 backbones × 2 tasks × 1 seeds = 12 runs\n" in said
    assert "With 6 backbones, only |ρ| ≥ 0.89 has p ≤ 0.05" in said


# a run under a plan


def configured(tmp_path: Path, *overrides: str):
    return load_config(
        [
            "backbone=mini_clip",
            "task=digits",
            "study.name=made",
            "probes.tasks=[shapes,counts]",
            f"runs_dir={tmp_path}",
            *overrides,
        ]
    )


def test_a_run_takes_the_hash_of_its_plan_and_keeps_it(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "plan.yaml")
    planned = f"study.plan={tmp_path / 'plan.yaml'}"
    run_folder = tmp_path / "run"
    assert bind_to_plan(configured(tmp_path), run_folder) == {}
    assert bind_to_plan(configured(tmp_path, planned), run_folder) == {"claim_plan": plan.hash}
    write_json(run_folder / "manifest.json", {"code_version": "made", "claim_plan": plan.hash})
    assert bind_to_plan(configured(tmp_path, planned), run_folder) == {"claim_plan": plan.hash}
    with pytest.raises(InputError, match=f"began under plan {plan.hash[:8]}, expected study.plan="):
        bind_to_plan(configured(tmp_path), run_folder)
    other = write_plan(tmp_path / "plan.yaml", level=0.5)
    with pytest.raises(InputError, match=f"began under plan {plan.hash[:8]}, found plan {other.hash[:8]}"):
        bind_to_plan(configured(tmp_path, planned), run_folder)
    write_json(run_folder / "manifest.json", {"code_version": "made"})
    with pytest.raises(InputError, match="began without a plan"):
        bind_to_plan(configured(tmp_path, planned), run_folder)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone=dinov2_b14"], "backbone of the plan: unknown value 'dinov2_b14'"),
        (["task=counts"], "task of the plan: unknown value 'counts'"),
        (["task=[digits,textures]"], "found the sequence digits, textures"),
        (["method=lora"], "method of the plan: unknown value 'lora'"),
        (["seed=3"], "seed of the plan: unknown value '3'"),
        (["study.name=other"], "study.name of the plan: unknown value 'other'"),
        (["probes.tasks=[shapes]"], "found no counts, expected all probes of the plan"),
        (["finetune.lr=1e-3"], "finetune.lr: found 0.001, expected 0.0005 as planned"),
        (["backbone=dino_s16", "backbone.size=B"], "backbone.size: found B, expected S"),
    ],
)
def test_only_planned_runs_may_start(tmp_path: Path, overrides: list[str], message: str) -> None:
    write_plan(tmp_path / "plan.yaml", settings={"finetune.lr": 5e-4})
    planned = f"study.plan={tmp_path / 'plan.yaml'}"
    config = configured(tmp_path, planned, *overrides)
    with pytest.raises(InputError, match=f"run not planned: .*{message}"):
        run(config)
    # refused before anything of the run was written
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_setting_that_does_not_exist_cannot_be_planned(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "plan.yaml", settings={"finetune.rate": 1.0})
    with pytest.raises(InputError, match=r"unknown setting in the plan's settings 'finetune\.rate'"):
        plan.check(configured(tmp_path))


# the runs of a plan


@pytest.fixture
def study(tmp_path: Path):
    plan = write_plan(tmp_path / "plan.yaml")
    return plan, write_study(tmp_path / "runs", plan, SCORES, FORGET)


def test_h_f_and_rivals_of_a_run_are_those_of_its_rows(study) -> None:
    plan, folder = study
    planned = read_planned_runs(plan, folder)
    assert len(planned.runs) == 12 and planned.step_0_difference == 0
    one = next(found for found in planned.runs if found.backbone == "dino_s16" and found.task == "textures")
    # .75 of the way from .2 to 1 is where .75 of the steps are done
    assert one.forgetting == pytest.approx(0.75 * FORGET["dino_s16"])
    assert (one.score, one.score_sd, one.n_fits) == (SCORES["dino_s16"], 0.01, 5)
    assert one.probe == pytest.approx(0.7)
    assert one.rivals == pytest.approx(
        {
            "brain R²": 0.3,
            "CKA drift": 0.75 * 0.5,
            "weight distance": 0.75 * 0.3,
            "size": np.log(1000 * len("dino_s16")),
        }
    )


def test_forgetting_is_read_where_all_have_learned_equally_much(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "plan.yaml", tasks=["digits"])
    for backbone in plan.backbones:
        best = 0.6 if backbone == "dino_s16" else 1.0
        rows = make_rows("digits", SCORES[backbone], -0.4, best=best)
        write_planned_run(tmp_path / "runs", plan.hash, backbone, "digits", rows)
    found = {one.backbone: one.forgetting for one in read_planned_runs(plan, tmp_path / "runs/made").runs}
    # .75 of the way from .2 to .6 is .5: the others are there after 3/8 of their steps
    assert found.pop("dino_s16") == pytest.approx(-0.4 * 0.75)
    assert [*found.values()] == pytest.approx([-0.4 * 0.375] * 5)


def change_manifest(folder: Path, **changes: object) -> None:
    content = read_json(folder / "manifest.json") | changes
    write_json(folder / "manifest.json", {key: value for key, value in content.items() if value is not None})


def first_of(folder: Path, name: str) -> Path:
    return next(iter(sorted(folder.glob(f"{name}-*"))))


def test_runs_of_another_plan_or_of_none_are_refused_by_name(study) -> None:
    plan, folder = study
    other, none = first_of(folder, "dino_s16"), first_of(folder, "mini_clip")
    change_manifest(other, claim_plan="0123456789")
    with pytest.raises(InputError, match=rf"1 began under another plan: {other.name} \(plan 01234567\)"):
        read_planned_runs(plan, folder)
    change_manifest(none, claim_plan=None)
    with pytest.raises(InputError, match=f"another plan: .*; 1 began without a plan: {none.name}"):
        read_planned_runs(plan, folder)


def test_a_plan_that_was_changed_afterwards_fits_no_run(study, tmp_path: Path) -> None:
    _, folder = study
    with pytest.raises(InputError, match=r"12 began under another plan: .* and 7 more"):
        read_planned_runs(write_plan(tmp_path / "plan.yaml", level=0.5), folder)


def test_the_test_waits_for_all_runs(study) -> None:
    plan, folder = study
    (first_of(folder, "dino_s16") / "finished.json").unlink()
    with pytest.raises(InputError, match="1 of the 12 planned runs are missing or unfinished: dino_s16 on"):
        read_planned_runs(plan, folder)
    with pytest.raises(InputError, match="found no run"):
        read_planned_runs(plan, folder / "absent")


def test_runs_with_different_settings_are_refused(study) -> None:
    plan, folder = study
    first = first_of(folder, "mini_clip-digits")
    config = yaml.safe_load((first / "config.yaml").read_text())
    config["finetune"]["lr"] = 0.1
    (first / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=f"{first.name}: found finetune.lr=0.1, expected 0.0005 as in"):
        read_planned_runs(plan, folder)


def without_check_sums(journal: Path) -> str:
    """A journal as an earlier version wrote it, which may be edited."""
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    return "".join(
        json.dumps({name: value for name, value in row.items() if name != "crc"}) + "\n" for row in rows
    )


def test_h_must_come_from_the_pretrained_backbone(study) -> None:
    plan, folder = study
    first = first_of(folder, "dino_s16")
    change_manifest(first, fingerprints={"pretrained_encoder": "another", "brain": "made"})
    with pytest.raises(InputError, match="found another backbone dino_s16 than in"):
        read_planned_runs(plan, folder)
    change_manifest(first, fingerprints={"pretrained_encoder": "dino_s16", "brain": "another"})
    with pytest.raises(InputError, match="found another brain than in"):
        read_planned_runs(plan, folder)
    change_manifest(first, fingerprints={"pretrained_encoder": "dino_s16", "brain": "made"})
    text = without_check_sums(first / "results.jsonl")
    moved = text.replace(
        '"drift/stem/weight_distance", "step": 0, "value": 0.0',
        '"drift/stem/weight_distance", "step": 0, "value": 0.5',
    )
    assert moved != text
    (first / "results.jsonl").write_text(moved)
    with pytest.raises(InputError, match="found drift/stem/weight_distance above 0 at step 0"):
        read_planned_runs(plan, folder)


def test_h_may_not_depend_on_the_task(study) -> None:
    plan, folder = study
    path = first_of(folder, "dino_s16") / "results.jsonl"
    text, score = without_check_sums(path), SCORES["dino_s16"]
    for by, allowed in ((0.009, True), (0.02, False)):
        rows = [json.loads(line) for line in text.splitlines()]
        for row in rows:
            row["value"] += by * (row["name"] == "alignment/all/slope_null_mean")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if allowed:
            assert read_planned_runs(plan, folder).step_0_difference == pytest.approx(by)
        else:
            with pytest.raises(InputError, match=f"found H between {score:.4f} and .* step 0 knows no task"):
                read_planned_runs(plan, folder)


# the test


def make_runs(
    scores: list[float], forgetting: list[float], tasks: tuple[str, ...] = ("a", "b")
) -> list[ClaimRun]:
    rivals = {"brain R²": 0.1, "CKA drift": 0.2, "weight distance": 0.3}
    rng = np.random.default_rng(0)
    return [
        ClaimRun(
            backbone=f"n{place}",
            task=task,
            seed=0,
            score=float(score),
            score_sd=0.1,
            n_fits=4,
            forgetting=float(forgot) + 0.01 * (task == "b") + 0.002 * rng.standard_normal(),
            probe=0.5 + 0.01 * rng.standard_normal(),
            rivals=rivals | {"size": 1.0 + place % 2},
        )
        for place, (score, forgot) in enumerate(zip(scores, forgetting, strict=True))
        for task in tasks
    ]


def test_a_claim_that_holds_is_found_and_said() -> None:
    order = [float(place) for place in range(8)]
    classes = dict.fromkeys((f"n{place}" for place in range(8)), "S")
    claim = judge_claim(make_runs(order, [0.1 * place for place in order]), classes)
    assert claim.holds and claim.found
    assert claim.test.rho == pytest.approx(1)
    assert claim.test.p == pytest.approx(2 / 40320)
    assert [one.name for one in claim.backbones] == [f"n{place}" for place in range(8)][::-1]
    assert write_verdict(claim, 0.75) == (
        "Brain-like networks forget less: over 8 backbones, H and F(0.75) have a rank correlation of +1.00 "
        "(p < .001)."
    )
    assert all(test.n_backbones == 7 and test.p <= 0.05 for test in claim.without.values())
    assert claim.mixed is not None and claim.mixed.effect > 0 and claim.mixed.p < 0.001
    # rivals that are the same for all say nothing
    assert claim.rivals["brain R²"].p == 1
    worse = judge_claim(make_runs(order, [-0.1 * place for place in order]), classes)
    assert worse.found and not worse.holds
    assert write_verdict(worse, 0.75).startswith("Brain-like networks forget more: ")
    unrelated = judge_claim(make_runs(order, [0.3, -0.3, 0.2, -0.2, -0.3, 0.3, -0.2, 0.2]), classes)
    assert not unrelated.found
    assert write_verdict(unrelated, 0.75).startswith("Not shown that brain-like networks forget less: ")


def test_tasks_count_equally_and_backbones_without_an_f_are_left_out() -> None:
    runs = make_runs([0.0, 1, 2, 3, 4], [0.0, 1, 2, 3, 4])
    runs = [
        replace(run, forgetting=np.nan) if (run.backbone, run.task) == ("n4", "b") else run for run in runs
    ]
    # two more seeds on one task
    runs += [
        replace(run, seed=seed, forgetting=6.0, score=7.0)
        for run in runs
        for seed in (1, 2)
        if (run.backbone, run.task) == ("n1", "a")
    ]
    claim = judge_claim(runs, dict.fromkeys((f"n{place}" for place in range(5)), "S"))
    assert claim.left_out == {"n4": "b"}
    one = next(backbone for backbone in claim.backbones if backbone.name == "n1")
    by_task = {
        task: np.mean([run.forgetting for run in runs if (run.backbone, run.task) == ("n1", task)])
        for task in "ab"
    }
    assert one.by_task == pytest.approx(by_task)
    assert one.forgetting == pytest.approx((by_task["a"] + by_task["b"]) / 2)
    assert one.score == pytest.approx((1 + 1 + 7 + 7) / 4) and one.n_runs == 4
    with pytest.raises(InputError, match="found 3 backbones that reach the level"):
        judge_claim(runs[:6], dict.fromkeys((f"n{place}" for place in range(3)), "S"))


def test_reliability_is_the_share_of_variance_that_is_no_noise() -> None:
    runs = make_runs([0.0, 1, 2, 3], [0.0, 1, 2, 3])
    classes = dict.fromkeys((f"n{place}" for place in range(4)), "S")
    # variance of the scores 5/3, of a mean of 4 fits .01/4
    assert judge_claim(runs, classes).reliability == pytest.approx(1 - 0.0025 / (5 / 3))
    noisy = [replace(run, score_sd=10.0) for run in runs]
    assert judge_claim(noisy, classes).reliability == 0


def test_the_command_prints_the_verdict_and_writes_a_page(
    study, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    plan, folder = study
    command.main([str(tmp_path / "plan.yaml"), "--runs-dir", str(tmp_path / "runs")])
    said = capsys.readouterr().out
    # 2! · 4! permutations within the two classes
    assert "Brain-like networks forget less: over 6 backbones" in said.splitlines()[0]
    assert "+1.00 within size classes (p = 0.042)" in said.splitlines()[0]
    assert f"page: {folder / 'claim.html'}" in said
    assert all(name in said for name in BACKBONES)
    result = read_json(folder / "claim.json")
    assert result["plan_hash"] == plan.hash and result["holds"]
    assert result["claim"]["test"]["n_permutations"] == 48
    assert len(result["runs"]) == 12
    page = (folder / "claim.html").read_text(encoding="utf-8")
    assert plan.hash in page and "data:image/svg+xml;base64" in page
    assert (folder / "claim.png").read_bytes()[:4] == b"\x89PNG"
    assert write_claim(plan, folder).text in said


def test_the_power_line_says_what_nothing_can_show(tmp_path: Path) -> None:
    plan = write_plan(
        tmp_path / "plan.yaml", backbones={name: PLAN["backbones"][name] for name in BACKBONES[:4]}
    )
    assert "With 4 backbones in 2 size classes, no correlation can reach p ≤ 0.05." in describe_plan(plan)
    claim = judge_claim(
        make_runs([0.0, 1, 2, 3], [0.0, 1, 2, 3]), dict.fromkeys((f"n{place}" for place in range(4)), "S")
    )
    assert write_power(claim.test, 0.05, None) == "With 4 backbones, no correlation can reach p ≤ 0.05."
