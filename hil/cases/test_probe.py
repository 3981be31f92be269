"""The probe recognises the board."""

import json

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
