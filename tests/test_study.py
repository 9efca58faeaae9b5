import pytest

from harness.config import ContrastConfig
from harness.reporting import read_questions
from harness.storage.errors import InputError
from harness.storage.files import write_json
from harness.studies import study
from harness.studies.grid import expand_grid
from harness.studies.pool import Job


def test_grid_is_expanded_and_the_command_line_wins():
    runs = list(expand_grid(["study=demo"]))
    assert [config.backbone.name for _, config in runs] == ["mini_clip", "mini_supervised", "mini_random"]
    assert runs[0][0] == ["study=demo", "backbone=mini_clip"]
    ((overrides, config),) = expand_grid(["study=demo", "backbone=mini_random", "seed=2"])
    # what the grid ties to a value still holds
    assert overrides == ["study=demo", "backbone=mini_random", "seed=2", "finetune.lr=1e-05"]
    assert (config.seed, config.finetune.lr) == (2, 1e-5)
    seeds = [config.seed for _, config in expand_grid(["study.grid={seed: [0, 1]}"])]
    assert seeds == [0, 1]


def test_finished_runs_are_skipped_and_failed_ones_counted(monkeypatch, tmp_path, capsys):
    overrides = ["study=demo", f"runs_dir={tmp_path}"]
    folders = [study.run_folder(config) for _, config in expand_grid(overrides)]
    write_json(folders[0] / "finished.json", {"steps": [0]})
    started = []

    def fail(name, jobs, layout, listener):
        started.extend(job.arguments[-1] for job in jobs)
        return {job.title: 1 for job in jobs}

    monkeypatch.setattr(study, "run_jobs", fail)
    monkeypatch.setattr(study, "write_report", lambda folder: folder / "report.html")
    monkeypatch.setattr(study, "read_runs", lambda folder: [])
    monkeypatch.setattr(study, "compare_runs", lambda runs: runs)
    monkeypatch.setattr(study, "format_table", lambda frame: "the table")
    asked = []
    monkeypatch.setattr(study, "contrast_runs", lambda runs, question: asked.append(question) or ["one"])
    monkeypatch.setattr(study, "log_report", lambda folder, report, table: asked.append(report.name))
    monkeypatch.setattr(study, "log_contrast", lambda folder, contrast: asked.append(contrast))
    monkeypatch.setattr(study, "format_contrasts", lambda contrasts, brief: "A against B")
    assert study.run_study(overrides) == 2
    # the demo ends in a contrast, which its report finds too
    question = ContrastConfig(a="mini_clip", b="mini_supervised")
    assert asked == ["report.html", question, "one"] and read_questions(folders[0].parent, []) == [question]
    assert started == ["backbone=mini_supervised", "finetune.lr=1e-05"]
    said = capsys.readouterr()
    assert "already finished" in said.out and "the table" in said.out and said.err.count("failed") == 2
    assert "A against B" in said.out


def test_a_contrast_that_runs_cannot_answer_is_one_line(tmp_path, capsys):
    study.print_contrast(tmp_path, [], ContrastConfig(a="mini_clip", b="mini_supervised"))
    assert capsys.readouterr().out.startswith("\nno contrast: unknown setting 'backbone.name'")
    study.print_contrast(tmp_path, [], None)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["clip_vs_imagenet", "demo"])
def test_a_study_ends_in_a_contrast_of_its_own_backbones(name):
    configs = [config for _, config in expand_grid([f"study={name}", "task=digits"])]
    question = configs[0].study.contrast
    assert question.factor == "backbone.name"
    assert {question.a, question.b} <= {config.backbone.name for config in configs}


def test_study_without_a_finished_run_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(study, "run_jobs", lambda name, jobs, *_: {job.title: 1 for job in jobs})
    with pytest.raises(InputError, match="none of the 3 runs has finished"):
        study.run_study(["study=demo", f"runs_dir={tmp_path}"])


@pytest.mark.parametrize(
    ("options", "gpus", "workers", "alone"),
    [
        (None, 0, None, False),  # a CPU
        (None, 1, None, False),
        (["--multi_gpu"], 2, None, False),  # a run per GPU
        (["--multi_gpu"], 2, 1, True),  # all GPUs for each
        ([], 2, None, True),  # as the user has configured accelerate
    ],
)
def test_runs_share_a_machine_or_have_it_alone(monkeypatch, options, gpus, workers, alone):
    jobs = [Job("[1/2] one", ["seed=1"]), Job("[2/2] two", ["seed=2"])]
    together, launched = [], []
    monkeypatch.setattr(study, "launch_options", lambda: options)
    monkeypatch.setattr(study, "count_gpus", lambda: gpus)
    monkeypatch.setattr(study, "launch", lambda name, arguments: launched.append(arguments) or 0)
    monkeypatch.setattr(study, "run_jobs", lambda name, jobs, layout, _: together.append(layout) or {})
    assert study.run_missing(jobs, workers) == 0
    assert launched == ([job.arguments for job in jobs] if alone else [])
    assert [layout.gpus for layout in together] == ([] if alone else [gpus])


def test_all_gpus_work_on_a_single_run(monkeypatch):
    launched = []
    monkeypatch.setattr(study, "launch_options", lambda: ["--multi_gpu"])
    monkeypatch.setattr(study, "count_gpus", lambda: 2)
    monkeypatch.setattr(study, "launch", lambda name, arguments: launched.append(arguments) or 0)
    assert study.run_missing([Job("[1/1] one", ["seed=1"])], None) == 0 and launched == [["seed=1"]]
    monkeypatch.setattr(study, "launch", lambda name, arguments: 130)
    with pytest.raises(SystemExit):
        study.run_missing([Job("[1/1] one", ["seed=1"])], None)


def test_unknown_study_is_one_line():
    with pytest.raises(InputError, match=r"unknown study 'demmo'.*did you mean 'demo'"):
        list(expand_grid(["study=demmo"]))


def test_settings_are_set_together():
    grid = "study.grid={method: [full, {method: lora, finetune.lr: 1e-3, finetune.clip_norm: null}]}"
    runs = [(config.method.name, config.finetune.lr) for _, config in expand_grid([grid])]
    assert runs == [("full", 5e-4), ("lora", 1e-3)]
    # the command line wins, and settings tied to the value it chooses are kept
    assert [config.finetune.lr for _, config in expand_grid([grid, "finetune.lr=0.1"])] == [0.1, 0.1]
    ((_, config),) = expand_grid([grid, "method=lora"])
    assert config.finetune.lr == 1e-3 and config.finetune.clip_norm is None
    ((_, config),) = expand_grid([grid, "method=bitfit"])
    assert (config.method.name, config.finetune.lr) == ("bitfit", 5e-4)


def test_settings_that_cannot_be_set_together_are_named():
    with pytest.raises(InputError, match=r"study.grid.method: found .*expected settings with method among"):
        list(expand_grid(["study.grid={method: [{finetune.lr: 1e-3}]}"]))
    with pytest.raises(InputError, match=r"unknown setting 'finetune.lrr'.*did you mean 'finetune.lr'"):
        list(expand_grid(["study.grid={method: [{method: lora, finetune.lrr: 1e-3}]}"]))
    with pytest.raises(InputError, match="unknown method 'lorra'"):
        list(expand_grid(["study.grid={method: [{method: lorra, finetune.lr: 1e-3}]}"]))


def test_values_are_left_out():
    runs = expand_grid(["study=demo", "study.leave_out=[mini_clip,mini_random]"])
    assert [config.backbone.name for _, config in runs] == ["mini_supervised"]
    seeds = expand_grid(["study.grid={seed: [0, 1, 2]}", "study.leave_out=[1]"])
    assert [config.seed for _, config in seeds] == [0, 2]
    with pytest.raises(InputError, match=r"study.leave_out 'mini_clap'.*did you mean 'mini_clip'"):
        list(expand_grid(["study=demo", "study.leave_out=[mini_clap]"]))
    everything = "study.leave_out=[mini_clip,mini_supervised,mini_random]"
    with pytest.raises(InputError, match=r"study.leave_out: found all values of backbone"):
        list(expand_grid(["study=demo", everything]))


def test_weights_that_nobody_has_are_said_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(study, "run_jobs", lambda *_: pytest.fail("a run was launched"))
    monkeypatch.delenv("PALIMPSEST_MOCOV3_B16", raising=False)
    with pytest.raises(
        InputError, match=r"see configs/backbone/mocov3_b16.yaml; to skip it: study.leave_out=\[mocov3_b16\]"
    ):
        study.run_study(["study=objectives", f"runs_dir={tmp_path}", "task=eurosat"])
    monkeypatch.setenv("PALIMPSEST_MOCOV3_B16", str(tmp_path / "none.pth"))
    with pytest.raises(InputError, match=r"study not started: weights of mocov3_b16: .*none.pth"):
        study.run_study(["study=objectives", f"runs_dir={tmp_path}", "task=eurosat"])
    left = expand_grid(["study=objectives", "task=eurosat", "study.leave_out=[mocov3_b16]"])
    sizes = {config.backbone.name: config.backbone.image_size for _, config in left}
    assert len(sizes) == 5 and sizes["sam_b16"] == 512
