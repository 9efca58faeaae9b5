"""Verdicts read back from rows."""

import pytest

from harness.measures.catalogue import describe
from harness.measures.verdict_rows import VERDICTS, Verdict, name_verdict, read_verdict, tag_verdicts

ROWS = {
    "verdict/all/kind": 3.0,
    "verdict/V1/kind": 0.0,
    "verdict/V4/kind": 3.0,
    "verdict/V4/p": 0.05,
    "verdict/V4/r2_before": 0.3,
    "verdict/V4/r2_after": 0.2,
    "verdict/LO2/kind": 3.0,
    "verdict/FFC/kind": 2.0,
    "verdict/PHA/kind": 1.0,
    "brain/all/r2": 0.2,
}


def test_codes_are_those_of_the_catalogue():
    definition = describe("verdict/V4/kind").definition
    assert definition == ", ".join(f"{code} {name}" for code, name in enumerate(VERDICTS)) + "."
    assert [name_verdict(code) for code in (0.0, 1.0, 2.0, 3.0)] == list(VERDICTS)


def test_a_verdict_is_read_from_rows():
    found = read_verdict(ROWS)
    assert found is not None
    assert found.regions("rewired") == ["V4", "LO2"]
    assert found.regions("unchanged") == ["V1"]
    assert found.kinds["all"] == "rewired"
    assert (found.p["V4"], found.r2_before["V4"], found.r2_after["V4"]) == (0.05, 0.3, 0.2)
    assert not found.collapsed


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (ROWS, "rewired: V4, LO2"),
        ({**ROWS, "verdict/V4/kind": 0.0, "verdict/LO2/kind": 1.0}, "reweighted: FFC"),
        ({"verdict/all/kind": 1.0, "verdict/PHA/kind": 1.0, "verdict/V1/kind": 0.0}, "loss of signal: PHA"),
        ({"verdict/all/kind": 0.0, "verdict/V1/kind": 0.0}, "unchanged"),
        ({"verdict/all/kind": 1.0}, "loss of signal"),
    ],
)
def test_the_strongest_verdict_names_its_regions(rows, text):
    assert read_verdict(rows).summarise() == text


def test_a_collapsed_backbone_has_no_verdict():
    found = read_verdict(ROWS | {"collapse/all/collapsed": 1.0, "collapse/all/degenerate": 1.0})
    assert found.collapsed
    assert found.kinds == {}
    assert found.summarise() == "collapsed, no verdict"
    assert found.reasons == ("its features no longer tell images apart",)


def test_without_rows_there_is_no_verdict():
    assert read_verdict({"brain/all/r2": 0.2, "collapse/all/collapsed": 0.0}) is None
    assert tag_verdicts({}) == {}


def test_subjects_have_their_own():
    rows = {"verdict/V4/subj01/kind": 3.0, "verdict/V1/subj01/kind": 0.0, "verdict/V4/subj02/kind": 0.0}
    assert read_verdict(rows) is None
    verdicts = {label: read_verdict(rows, label) for label in ("subj01", "subj02")}
    assert tag_verdicts(verdicts) == {
        "verdict": "subj01: rewired: V4; subj02: unchanged",
        "rewired_regions": "V4",
    }


def test_tags_of_one_subject():
    assert tag_verdicts({None: read_verdict(ROWS)}) == {
        "verdict": "rewired: V4, LO2",
        "rewired_regions": "V4,LO2",
    }
    gone = Verdict(reasons=("its weights are not finite",))
    assert tag_verdicts({"subj01": gone, "subj02": gone}) == {
        "verdict": "collapsed, no verdict",
        "rewired_regions": "",
    }
