"""The report of a run: every case with its verdict, the reason if it did not run, and what it measured."""

import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from xml.sax.saxutils import quoteattr

NOTES = [
    "Killing QEMU is a power cut for the guest's memory only: writes that QEMU already took are kept by the host. Lost writes of a"
    " device's cache are covered by the simulated disk of the project's own tests (make crash).",
]


class Report:
    def __init__(self, environment: str) -> None:
        self._environment = environment
        self._began = datetime.now(timezone.utc)
        self._figures: dict[str, dict] = {}
        self._cases: dict[str, dict] = {}

    def figures(self, case: str) -> dict:
        return self._figures.setdefault(case, {})

    def take(self, result) -> None:
        # A case has passed when its own steps have: one that was interrupted, or never came to them, has not.
        case = self._cases.setdefault(result.nodeid, {"verdict": "failed", "seconds": 0.0, "why": "did not come to its end"})
        case["seconds"] = round(case["seconds"] + result.duration, 1)
        if result.skipped:
            reason = result.longrepr[2] if isinstance(result.longrepr, tuple) else str(result.longrepr)
            case.update(verdict="skipped", why=reason.removeprefix("Skipped: "))
        elif result.failed:
            crash = getattr(result.longrepr, "reprcrash", None)
            case.update(verdict="failed", why=crash.message if crash else str(result.longrepr))
        elif result.when == "call":
            case.update(verdict="passed", why="")

    def why(self, case: str) -> str:
        """Why a case did not pass."""
        return self._cases[case].get("why", "")

    def content(self) -> dict:
        cases = [{"case": name, **case, "figures": self._figures.get(name, {})} for name, case in self._cases.items()]
        took = round((datetime.now(timezone.utc) - self._began).total_seconds())
        began = self._began.isoformat(timespec="seconds")
        return {"environment": self._environment, "began": began, "seconds": took, "cases": cases, "notes": NOTES}

    def text(self) -> str:
        content = self.content()
        lines = [f"environment {self._environment}, {self._began:%Y-%m-%d %H:%M} UTC, {content['seconds']} s", ""]
        for case in content["cases"]:
            why = f": {case['why'].splitlines()[0]}" if case.get("why") else ""
            lines.append(f"{case['verdict']:8}{case['seconds']:7.1f} s  {case['case']}{why}")
            lines += [f"{'':20}{key} = {json.dumps(value)}" for key, value in case["figures"].items()]
        return "\n".join([*lines, "", *NOTES, ""])

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(self.content(), indent=2) + "\n")
        (folder / "report.txt").write_text(self.text())


def missing(why: str, folder: Path, environment: str) -> None:
    """The report of a rig that could not be run at all, which is never a pass."""
    report = Report(Path(environment).stem)
    text = {**report.content(), "cases": [{"case": "the rig", "verdict": "missing", "seconds": 0.0, "why": why, "figures": {}}]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.txt").write_text(f"{report.text()}missing: {why}\n")
    (folder / "report.json").write_text(json.dumps(text, indent=2) + "\n")
    (folder / "junit.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<testsuites><testsuite name="pytest" tests="1" errors="1" failures="0" skipped="0">'
        f'<testcase classname="rig" name={quoteattr(Path(environment).stem)}><error message={quoteattr(why)}/></testcase></testsuite></testsuites>\n'
    )


if __name__ == "__main__":
    # --missing WHY FOLDER ENVIRONMENT
    missing(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
