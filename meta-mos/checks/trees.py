"""Checks of `device-tree/`: the binding by dt-schema, and every board's compiled tree by the binding.

Promises: trees are judged as blobs, after dtc and fdtoverlay, as a board gets them. Judges only what `mos,lenses` binds; the
rest of the fixtures is an excerpt of Linux' trees, whose bindings are not here.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from parse import Layer, Parsed

# Which overlays go on which fixture.
BOARDS = {
    "imx8mp-evk": ["imx8mp-evk-mos-two-mipi"],
    "qcs6490-rb3gen2": ["qcs6490-rb3gen2-mos"],
    "qcs6490-rb3gen2-camss": ["qcs6490-rb3gen2-mos"],
    "pc": [],
}
SCHEMA = "mos,lenses"
TOOLS = Path(sys.executable).parent


def binding(layer: Layer, _parsed: Parsed) -> list[str]:
    """dt-doc-validate finds nothing in the binding, and dt-validate nothing in its example."""
    folder = layer.repository / "device-tree/bindings"
    files = sorted(folder.glob("*.yaml"))
    problems = [] if files else ["there is no binding"]
    for path in files:
        problems += _said([TOOLS / "dt-doc-validate", path])
        with tempfile.TemporaryDirectory() as made:
            example = Path(made) / "example.dts"
            text = subprocess.run([TOOLS / "dt-extract-example", path], capture_output=True, text=True, check=False)
            # The tool gives an example that has no root one; ours names its root itself.
            example.write_text(text.stdout, encoding="utf-8")
            blob = Path(made) / "example.dtb"
            problems += _said(["dtc", "-q", "-I", "dts", "-O", "dtb", "-o", blob, example]) or _judged(folder, blob)
    return problems


def trees(layer: Layer, _parsed: Parsed) -> list[str]:
    """Every fixture compiles, every overlay applies to its fixtures, and the lenses in what comes out are as the binding says."""
    root = layer.repository / "device-tree"
    problems = [f"no fixture {name}" for name in BOARDS if not (root / "fixtures" / f"{name}.dts").is_file()]
    named = {overlay for overlays in BOARDS.values() for overlay in overlays}
    problems += [f"{path.name} goes on no fixture" for path in (root / "overlays").glob("*.dtso") if path.stem not in named]
    if problems:
        return problems
    with tempfile.TemporaryDirectory() as made:
        for board, overlays in BOARDS.items():
            blob = Path(made) / f"{board}.dtb"
            found = _compiled(root / "fixtures" / f"{board}.dts", blob)
            for overlay in overlays:
                applied = Path(made) / f"{board}-{overlay}.dtb"
                part = Path(made) / f"{overlay}.dtbo"
                found = found or _compiled(root / "overlays" / f"{overlay}.dtso", part)
                found = found or _said(["fdtoverlay", "-i", blob, "-o", applied, part])
                blob = applied
            problems += [f"{board}: {line}" for line in found or _judged(root / "bindings", blob)]
    return problems


def overlay_recipe(layer: Layer, parsed: Parsed) -> list[str]:
    """mos-device-tree names only overlays that exist, one at least wherever it may be built, and every overlay somewhere."""
    existing = {path.stem for path in (layer.repository / "device-tree/overlays").glob("*.dtso")}
    problems, named = [], set()
    for where, data in parsed.of("mos-device-tree"):
        overlays, possible = data.getVar("MOS_OVERLAYS").split(), re.compile(data.getVar("COMPATIBLE_MACHINE"))
        buildable = any(possible.match(word) for word in data.getVar("OVERRIDES").split(":"))
        problems += [f"{where}: no overlay {name}" for name in overlays if name not in existing]
        if buildable != bool(overlays):
            problems.append(f"{where}: {'built without overlays' if buildable else 'overlays, but it may not be built'}")
        named |= set(overlays) if buildable else set()
    return problems + [f"device-tree/overlays/{name}.dtso is deployed on no machine" for name in sorted(existing - named)]


def _compiled(source: Path, blob: Path) -> list[str]:
    # An overlay has only one of the two ports that make the cell counts necessary.
    return _said(["dtc", "-@", "-W", "no-graph_child_address", "-I", "dts", "-O", "dtb", "-i", source.parent, "-o", blob, source])


def _judged(bindings: Path, blob: Path) -> list[str]:
    return _said([TOOLS / "dt-validate", "-s", bindings, "-l", SCHEMA, blob])


def _said(command: list) -> list[str]:
    """What a tool that should be silent says."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    lines = [re.sub(r"^/\S*/", "", line.strip()) for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines or ([f"{Path(command[0]).name} ended with {done.returncode}"] if done.returncode else [])


CHECKS = [binding, trees, overlay_recipe]
