"""One HTML page about all rigs' reports: every case with its verdict, the reason if it did not pass, and its figures.

    python -m mos_hil.page FOLDER    reads FOLDER/*/report.json, writes FOLDER/index.html
"""

import html
import json
import sys
from pathlib import Path

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1b1f24 }
table { border-collapse: collapse; width: 100%; margin-bottom: 2rem }
td, th { border-bottom: 1px solid #d8dee4; padding: .4rem .6rem; text-align: left; vertical-align: top }
td.passed { color: #1a7f37 } td.failed, td.missing { color: #b42318; font-weight: 600 } td.skipped { color: #7d5a00 }
code { font-size: 13px; overflow-wrap: anywhere } .why { white-space: pre-wrap } .n { text-align: right }
"""
ORDER = {"failed": 0, "missing": 1, "passed": 2, "skipped": 3}


def page(reports: list[dict]) -> str:
    body = "".join(_rig(report) for report in reports)
    notes = dict.fromkeys(note for report in reports for note in report["notes"])
    listed = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>MOS on rigs</title><style>{STYLE}</style>"
        f"<h1>MOS on rigs</h1>{body}<h2>What this does not prove</h2><ul>{listed}</ul></html>\n"
    )


def _rig(report: dict) -> str:
    verdicts = [case["verdict"] for case in report["cases"]]
    counted = ", ".join(f"{verdicts.count(v)} {v}" for v in ORDER if v in verdicts) or "nothing ran"
    rows = "".join(_case(case) for case in sorted(report["cases"], key=lambda case: ORDER[case["verdict"]]))
    return (
        f"<h2>{html.escape(report['environment'])}</h2><p>{html.escape(report['began'])}: {counted}, in {report['seconds']} s</p>"
        f"<table><tr><th>Case<th>Verdict<th>Seconds<th>Figures</tr>{rows}</table>"
    )


def _case(case: dict) -> str:
    figures = "".join(f"<div><code>{html.escape(key)} = {html.escape(json.dumps(value))}</code></div>" for key, value in case["figures"].items())
    why = f'<div class=why>{html.escape(case["why"])}</div>' if case.get("why") else ""
    return (
        f"<tr><td>{html.escape(case['case'])}<td class={case['verdict']}>{case['verdict']}"
        f"<td class=n>{case['seconds']}<td>{why}{figures}</tr>"
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "index.html").write_text(page([json.loads(file.read_text()) for file in sorted(folder.glob("*/report.json"))]))
    print(f"page: {folder.resolve() / 'index.html'}")
