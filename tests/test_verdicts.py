"""Verdicts in words: the cells of the comparison, and the first sentences of a report."""

import pytest

from harness.measures.verdict_rows import Verdict
from harness.reporting.verdicts import CERTAINTY, NO_VERDICT, write_cell, write_findings

GONE = Verdict(reasons=("its features no longer tell images apart",))


def verdict(**kinds):
    return Verdict({"all": "rewired" if "rewired" in kinds.values() else "unchanged", **kinds})


ONE = Verdict(
    kinds={
        "all": "rewired",
        "V1": "unchanged",
        "V2": "unchanged",
        "V4": "rewired",
        "LO2": "rewired",
        "FFC": "reweighted",
        "PHA": "loss of signal",
    },
    p={"V4": 0.05, "FFC": 0.0005},
    r2_before={"all": 0.3, "V4": 0.4, "PHA": 0.3},
    r2_after={"all": 0.25, "V4": 0.35, "PHA": 0.1},
)


def test_findings_of_one_run():
    found, certainty = write_findings({"mini_clip": [ONE]})
    assert found == (
        "In mini_clip, V4 (p = 0.050) and LO2 are rewired, FFC (p < .001) is reweighted, 1 other region has "
        "lost signal and 2 other regions are unchanged (ΔR² of the brain −0.050)."
    )
    assert certainty == CERTAINTY
    assert found.count(". ") == 0 and certainty.count(". ") == 0


def test_findings_where_nothing_is_rewired():
    found, _ = write_findings({"mini_clip": [verdict(V1="unchanged", V4="reweighted")]})
    assert found == "In mini_clip, no region is rewired, V4 is reweighted and 1 other region is unchanged."
    found, _ = write_findings({"mini_clip": [verdict(V1="unchanged", V4="unchanged")]})
    assert found == "In mini_clip, no region is rewired and 2 regions are unchanged."
    found, _ = write_findings({"mini_clip": [Verdict({"all": "loss of signal"})]})
    assert found == "In mini_clip, the brain is judged loss of signal."
    lost = [verdict(V1="loss of signal", V4="loss of signal"), verdict(V1="unchanged", V4="loss of signal")]
    found, _ = write_findings({"a": lost[:1]}, forgotten={"a": -0.1234, "b": 0.1})
    assert found == (
        "In a, no region is rewired and 2 regions have lost signal, and linear probes of other "
        "tasks "
        "changed by −0.123."
    )
    found, _ = write_findings({"a": lost})
    assert found == "In a, no region is rewired and 2 regions have lost signal in some seeds."


def test_findings_of_a_study():
    found, certainty = write_findings({"a": [verdict(V4="rewired")], "mini_random": [GONE], "c": []})
    assert found == (
        "In a, V4 is rewired; in mini_random, the backbone collapsed (its features no longer tell images "
        "apart), so there is no verdict."
    )
    assert certainty == CERTAINTY


def test_findings_of_several_seeds():
    seeds = [verdict(V4="rewired", LO2="rewired"), verdict(V4="rewired", LO2="unchanged"), GONE]
    found, _ = write_findings({"a": seeds})
    assert found == (
        "In a, V4 (in 2 of 3 seeds) and LO2 (in 1 of 3 seeds) are rewired, and the backbone collapsed in 1 "
        "of 3 seeds."
    )


def test_without_verdicts_nothing_is_claimed():
    assert write_findings({"a": [], "b": []}) == NO_VERDICT
    _, certainty = write_findings({"a": [GONE]})
    assert "no verdict" in certainty


@pytest.mark.parametrize(
    ("verdicts", "cell"),
    [
        ([], ""),
        ([ONE], "rewired: V4, LO2"),
        ([GONE], "collapsed, no verdict"),
        ([GONE, GONE], "collapsed, no verdict"),
        ([ONE, verdict(V4="rewired"), verdict(V1="unchanged")], "rewired: V4 2/3, LO2 1/3"),
        ([verdict(V1="unchanged"), GONE], "unchanged; collapsed 1/2"),
        ([verdict(**{f"V{area}": "reweighted" for area in range(6)})], "reweighted: V0, V1, V2, V3 +2"),
    ],
)
def test_cells(verdicts, cell):
    assert write_cell(verdicts) == cell
