from __future__ import annotations

import io
import re
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_study import make_brain, make_mapping, without_surface, write_run

from harness.brains.brain import Brain
from harness.commands.report import main
from harness.mappings.mapping import (
    load_mapping,
    save_mapping,
)
from harness.plot.layer_maps import (
    choose_limit,
    measure_shift,
)
from harness.reporting import page as report
from harness.reporting.comparison import (
    choose_score_columns,
    columns_of,
    compare_runs,
)
from harness.reporting.page import (
    build_tables,
    choose_lines,
    write_report,
)
from harness.reporting.page_brains import (
    name_areas,
    order_places,
)
from harness.reporting.run_results import read_runs
from harness.runs.journal import Journal
from harness.storage.errors import InputError


class Page(HTMLParser):
    """Tags with their attributes, and the text, of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def values(self, tag: str, attribute: str) -> list[str]:
        return [found[attribute] or "" for name, found in self.tags if name == tag and attribute in found]


def use_brain(monkeypatch: pytest.MonkeyPatch, brain: Brain) -> None:
    monkeypatch.setattr(report, "load_brain", lambda config: brain)


def leave_pictures_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw figures, but do not render them: for tests of a page's text, as rendering is half of its time."""
    for name in ("pictures.embed_svg", "page.embed_png"):
        monkeypatch.setattr(f"harness.reporting.{name}", lambda figure, *resolution: "data:image/png;base64,")


@pytest.fixture(scope="module")
def brain() -> Brain:
    return make_brain()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, brain: Brain) -> Path:
    """Write two seeds of a trained backbone, one of a control, and an unfinished run."""
    folder = tmp_path_factory.mktemp("runs")
    base = ["study.name=made", f"runs_dir={folder}", "mapping.floor_refits=2"]
    write_run([*base, "seed=0"], brain, (0, 4))
    write_run([*base, "seed=1"], brain, (0, 4))
    write_run([*base, "backbone=mini_random"], brain, (0, 4))
    begun = folder / "made" / "<i>begun"
    begun.mkdir()
    (begun / "config.yaml").touch()
    return folder / "made"


@pytest.fixture(scope="module")
def printed(study: Path, brain: Brain) -> str:
    """Write the page by the command; return what it prints."""
    with pytest.MonkeyPatch.context() as monkeypatch, redirect_stdout(io.StringIO()) as output:
        use_brain(monkeypatch, brain)
        monkeypatch.setattr(sys, "argv", ["report", str(study)])
        main()
    return output.getvalue()


@pytest.fixture(scope="module")
def page(study: Path, printed: str) -> Page:
    return Page(study / "report.html")


def test_a_page_needs_nothing_beside_it(page: Page) -> None:
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "base"}
    assert all(address.startswith("data:image/") for address in page.values("img", "src"))
    assert not page.values("a", "href")
    assert all(page.values("img", "alt"))
    assert not page.open


def test_a_page_holds_curves_and_maps(page: Page) -> None:
    addresses = page.values("img", "src")
    assert sum(address.startswith("data:image/svg") for address in addresses) == 5
    # layers of every run, and clusters of each backbone's first seed
    assert sum(address.startswith("data:image/png") for address in addresses) == 3 + 2
    for heading in (
        "Comparison",
        "Forgetting beside learning",
        "Rewiring over the floor",
        "Which voxels read alike",
        "Sources",
    ):
        assert heading in page.text
    assert "mean noise ceiling" in page.text
    assert "0123456789ab" in page.text
    assert "torch 2.15.0" in page.text


def test_pages_share_one_head() -> None:
    folder = Path(report.__file__).parent / "templates"
    pages = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}
    assert [name for name, text in pages.items() if "<head>" in text] == ["base.html"]
    for name in ("report.html", "atlas.html", "claim.html"):
        assert pages[name].startswith('{% extends "base.html" %}')


def test_accuracies_stand_beside_images_and_intervals(page: Page, study: Path) -> None:
    assert "digits: accuracy, n 100" in page.text
    assert "Brackets: 95 % interval over test images (bootstrap over seeds and images)" in page.text
    assert "Scores of probes, before and after" in page.text
    (low, high), *_ = re.findall(
        r"0\.100(?:±0\.000)?\[(0\.\d{3}), (0\.\d{3})\]", re.sub(r"\s", "", page.text).replace(",", ", ")
    )
    assert float(low) < 0.1 < float(high)


def test_a_page_says_what_it_lacks(page: Page) -> None:
    _, _, missing = page.text.partition("What is not shown")
    # made runs have neither evidence per layer nor, but for CLIP, a text tower
    assert "All runs: no verdict, as there is no evidence per layer." in missing
    assert "mini_random: no Δ_ZS, which takes a pretrained text tower." in missing


def test_every_number_says_where_it_is(page: Page, study: Path) -> None:
    where = page.values("td", "title")
    frame = compare_runs(read_runs(study))
    columns = [*columns_of(frame), *choose_score_columns(read_runs(study))]
    assert len(where) == len(columns) * len(frame)
    for run in read_runs(study):
        for column in columns:
            name, step, value = run.find(column.metric, column.at)
            if value is not None:
                wanted = f"{name}, step {step}, seed {run.config.seed}: {value:.6g}"
                assert any(wanted in text for text in where)
            assert column.metric in page.text


def test_numbers_are_means_over_seeds(study: Path) -> None:
    runs = read_runs(study)
    tables = list(build_tables(compare_runs(runs), choose_lines(runs)))
    deltas = [run.find("forgetting/counts/delta_lp", "end")[2] for run in runs[:2]]
    place = [column.metric for column in tables[0]["columns"]].index("forgetting/counts/delta_lp")
    cell = tables[0]["rows"][0]["cells"][place]
    assert (cell["text"], cell["sd"]) == (f"−{-np.mean(deltas):.3f}", f"±{np.std(deltas, ddof=1):.3f}")
    assert tables[0]["rows"][1]["cells"][place]["sd"] == ""
    for table in tables:
        places = [place for part in table["parts"] for group in part.values() for place in group]
        assert places == list(range(len(table["columns"])))


def test_a_page_begins_with_what_was_found(
    tmp_path: Path, brain: Brain, monkeypatch: pytest.MonkeyPatch, page: Page
) -> None:
    # runs without verdicts claim nothing
    assert "whether anything was rewired cannot be said" in page.text
    use_brain(monkeypatch, brain)
    leave_pictures_out(monkeypatch)
    base = ["study.name=judged", f"runs_dir={tmp_path}", "mapping.floor_refits=2"]
    clip = write_run(base, brain, (0, 4))
    control = write_run([*base, "backbone=mini_random"], brain, (0, 4))
    rows = {
        clip: {"verdict/all/kind": 3, "verdict/V1/kind": 0, "verdict/V2/kind": 3, "verdict/V3/kind": 2},
        control: {"collapse/all/collapsed": 1, "collapse/all/probe_fell": 1},
    }
    for folder, found in rows.items():
        with Journal(folder / "results.jsonl") as journal:
            journal.log(4, found)
    text = Page(write_report(tmp_path / "judged")).text
    first, _, rest = text.partition("At step 0, the pretrained backbone")
    assert re.search(
        r"In mini_clip, V2 is rewired, V3 is reweighted and 1 other region is unchanged, and linear probes "
        r"of other tasks changed by [+−]0\.\d{3} \(mean of 3, 100 test images each\);",
        first,
    )
    assert "in mini_random, the backbone collapsed (a fresh linear probe has lost" in first
    assert "rewired: V2" in rest and "collapsed, no verdict" in rest
    assert "mini_random (collapsed)" in rest


def test_unfinished_runs_are_named_and_nothing_is_markup(page: Page) -> None:
    assert "Not finished, not shown: <i>begun" in page.text
    assert not re.search("</|<b>|&lt;", page.text)


def test_what_is_mapped_is_what_is_measured(study: Path, brain: Brain) -> None:
    run = read_runs(study)[0]
    mappings = run.folder / "mappings"
    step_0 = [load_mapping(path) for path in sorted(mappings.glob("step-000000*"))]
    assert len(step_0) == 3
    shift = measure_shift(step_0, load_mapping(mappings / "step-000004"))
    for roi in brain.rois:
        value = run.curve(f"rewiring/{roi.name}/depth_shift")[4]
        assert shift.end[roi.voxels].mean() == pytest.approx(value, abs=1e-6)
    assert shift.floor is not None
    assert abs(shift.floor.mean()) < 0.1 < shift.end[brain.rois[0].voxels].mean()


def test_the_scale_of_shifts_is_that_of_the_largest(brain: Brain) -> None:
    step_0 = [make_mapping(brain, 0.5, 0.0, seed, noise=0.0) for seed in range(2)]
    still, moved = (measure_shift(step_0, make_mapping(brain, 0.5, shift, 3, 0.0)) for shift in (0.0, 0.3))
    assert choose_limit([still]) <= 0.1
    assert choose_limit([still, moved]) == choose_limit([moved]) >= np.percentile(np.abs(moved.end), 99)
    assert choose_limit([]) == 0.05


def test_places_are_in_the_order_of_the_hierarchy(brain: Brain) -> None:
    unknown = replace(brain.rois[0], name="unranked", rank=None)
    shuffled = replace(brain, rois=(unknown, *reversed(brain.rois)))
    assert order_places([shuffled]) == ["V1", "V2", "V3", "unranked"]
    # ranks hold across brains, in either order
    without = replace(brain, rois=tuple(replace(roi, rank=None) for roi in brain.rois[:2]))
    assert order_places([without, shuffled]) == order_places([shuffled, without])[:4]
    assert order_places([shuffled, without]) == ["V1", "V2", "V3", "unranked"]
    assert name_areas([without, shuffled]) == {
        "early_areas": ["V1"],
        "middle_areas": ["V2"],
        "high_areas": ["V3"],
    }


@pytest.mark.parametrize("case", ["no surface, no ceiling", "one region, one snapshot", "no zero-shot"])
def test_a_page_is_written_where_something_is_missing(
    case: str, tmp_path: Path, brain: Brain, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = {"no surface, no ceiling": without_surface(brain), "one region, one snapshot": make_brain(1)}
    used = subject.get(case, brain)
    use_brain(monkeypatch, used)
    base = ["study.name=poor", f"runs_dir={tmp_path}", "mapping.floor_refits=2"]
    write_run([*base, "backbone=mini_supervised"], used, (0,) if "snapshot" in case else (0, 2))
    page = Page(write_report(tmp_path / "poor"))
    has_maps = any(address.startswith("data:image/png") for address in page.values("img", "src"))
    assert has_maps
    assert "Which voxels read alike" in page.text
    assert ("mean noise ceiling" in page.text) == (used.noise_ceiling is not None)
    assert ("Rewiring over the floor" in page.text) == ("snapshot" not in case)
    assert "Δ_ZS" not in page.text
    assert "seeds" not in re.sub(r"every seed’s value", "", page.text)


def test_mappings_without_channels_have_no_clusters(
    tmp_path: Path, brain: Brain, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_brain(monkeypatch, brain)
    leave_pictures_out(monkeypatch)
    folder = write_run(["study.name=ridge", f"runs_dir={tmp_path}", "mapping.floor_refits=2"], brain, (0, 2))
    absent = dict.fromkeys(("space", "scale", "weights", "bias"))
    for path in (folder / "mappings").iterdir():
        save_mapping(replace(load_mapping(path), family="layer_ridge", **absent), path)
    page = Page(write_report(tmp_path / "ridge"))
    assert "Which voxels read alike" not in page.text
    assert "Which layer the cortex reads" in page.text


def test_a_broken_run_is_named_and_the_old_page_stays(
    study: Path, tmp_path: Path, brain: Brain, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_brain(monkeypatch, brain)
    leave_pictures_out(monkeypatch)
    folder = write_run(["study.name=broken", f"runs_dir={tmp_path}", "mapping.floor_refits=2"], brain, (0, 2))
    before = "<p>an old page</p>"
    (folder.parent / "report.html").write_text(before)
    (folder / "mappings" / "step-000002" / "mapping.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"step-000002/mapping\.safetensors: not a readable"):
        write_report(folder.parent)
    assert (folder.parent / "report.html").read_text() == before
    assert not list(folder.parent.glob(".report*"))


def test_a_study_without_finished_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="unknown study"):
        write_report(tmp_path / "nowhere")


def test_the_command_prints_where_the_page_is(study: Path, printed: str) -> None:
    assert printed == f"{study / 'report.html'}\n"


def test_several_subjects_have_means_intervals_and_maps_of_each(
    tmp_path: Path, brain: Brain, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_brain(monkeypatch, brain)
    base = ["study.name=three", f"runs_dir={tmp_path}", "mapping.floor_refits=2", "brain.subjects=[4,5,6]"]
    folder = write_run(base, brain, (0, 2))
    path = write_report(folder.parent)
    assert path == folder.parent / "report.html"
    page = Page(path)
    (run,) = read_runs(folder.parent)
    tables = list(build_tables(compare_runs([run]), choose_lines([run])))
    assert [table["title"] for table in tables][2:] == ["Rewired, every subject"]
    # with intervals, brain R² no longer fits beside the others
    assert [list(part)[-1] for part in tables[1]["parts"]] == ["change of fit", "brain R²"]
    assert [row["label"] for row in tables[2]["rows"]] == ["subj04", "subj05", "subj06"]
    for row in tables[2]["rows"]:
        for column, cell in zip(tables[2]["columns"], row["cells"], strict=True):
            where, measure = column.metric.rsplit("/", 1)
            name, step, value = run.find(f"{where}/{row['label']}/{measure}", column.at)
            assert value is not None and cell["text"] == column.write(value)
            assert cell["where"] == f"{name}, step {step}, seed 0: {value:.6g}"
    place = [column.metric for column in tables[1]["columns"]].index("rewiring/all/wasserstein_excess")
    low, high = (
        run.find(f"rewiring/all/wasserstein_excess_subjects_{end}", "end")[2] for end in ("low", "high")
    )
    assert tables[1]["rows"][0]["cells"][place]["interval"] == f"[{low:+.3f}, {high:+.3f}]".replace("-", "−")
    # maps of every subject, clusters of the first only
    assert sum(address.startswith("data:image/png") for address in page.values("img", "src")) == 3 + 1
    for text in (
        "several subjects",
        "p, subjects",
        "mini_clip, subj04",
        "seed 0, subj06",
        "thin lines are the subjects",
    ):
        assert text in page.text
