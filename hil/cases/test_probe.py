"""The probe recognises the board."""

import json

import pytest
from mos_hil.board import Board


def test_platform_and_its_evidence(board: Board, options: dict, figures: dict) -> None:
    found = json.loads(board.run("mos probe --json"))
    figures.update(platform=found["platform"], evidence=found["evidence"], stack=found["stack"])
    assert found["platform"] == options["platform"]
    assert options.get("evidence", "") in found["evidence"] != ""
    assert found["faults"] == []


def test_lenses_of_the_device_tree(board: Board, options: dict, figures: dict) -> None:
    found = json.loads(board.run("mos probe --json"))
    figures["lenses"] = [f"{c['name']}: {c['source'] or c['problem']}" for c in found["cameras"]]
    assert [c["name"] for c in found["cameras"]] == options["lenses"]
    for camera in found["cameras"]:
        assert camera["source"] or camera["problem"], f"{camera['name']}: neither a source nor why there is none"


def test_every_codec_task_has_an_element_or_a_reason(board: Board) -> None:
    found = json.loads(board.run("mos probe --json"))
    assert found["codecs"]
    for codec in found["codecs"]:
        assert codec["chosen"] or codec["passed_over"], codec


def test_what_the_vendor_has_not_installed_is_named(board: Board, options: dict, figures: dict) -> None:
    """A board by its tree alone: every way to its hardware is refused with the element that is missing, and nothing is in its place."""
    without = options.get("without")
    if not without:
        pytest.skip("the environment names no elements that the board lacks")
    found = json.loads(board.run("mos probe --json"))
    figures["stack"] = found["stack"]
    text = json.dumps(found)
    for element in without:
        assert element in text, f"{element} is missing on this board, and nobody says so"
    present = [c for c in found["codecs"] if c["chosen"]]
    figures["fall_back"] = {c["task"]: c["chosen"]["element"] for c in present}
    assert present, "no task has a fall-back"
    assert not any(element in json.dumps(c["chosen"]) for c in present for element in without)
