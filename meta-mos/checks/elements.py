"""Checks of GStreamer's elements: what the HAL names against what the recipe's packages bring.

Promises: every element that the program may ask for has a row in known.toml, and a package that the recipe brings, by default or
by an entry of PACKAGECONFIG; no package of elements is brought that nothing uses. Elements are found by where they stand in
strings of the sources (at the head of a pipeline's part, as an argument of what makes elements, by what names of elements end
in), so that a new one needs a row before it is used. Test code is left out.
"""

import re
import subprocess
import tomllib
from pathlib import Path

from parse import Layer, Parsed

SOURCES = ["hal/src", "hal/frame-gst/src"]
TESTS = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*mod \w+ \{")
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"', re.S)
# At the head of a part of a pipeline.
HEAD = re.compile(r"(?:^|! )\s*([a-z][a-z0-9_]+)(?= |$)")
MAKERS = re.compile(r'(?:ElementFactory::\w+\(|\b(?:make|element|common::has)\(|\belement: )"([a-z][a-z0-9_]+)"')
# What looks like an element; and what does for all that not name one: names within our pipelines, V4L2 cards, words.
LOOK = re.compile(r"[a-z0-9_]{3,}(?:src|enc|dec|parse|pay|demux|mux|convert|convert_g2d|transform|scale)|\w+(?:enc|dec)_(?:h26[45]|hevc|aac)")
NOT = {"before", "demux", "depay", "vsi_v4l2dec", "vsi_v4l2enc"}
GST_PLUGINS = re.compile(r"gstreamer1\.0-plugins-(?:base|good|bad|ugly)-(\w+)$")


def named(repository: Path) -> dict[str, str]:
    """The elements that the sources name, each with a file that does."""
    found: dict[str, str] = {}
    for folder in SOURCES:
        for path in sorted((repository / folder).rglob("*.rs")):
            if path.stem == "tests" or "tests" in path.parts[-3:-1]:
                continue
            text = TESTS.split(path.read_text(encoding="utf-8"))[0]
            text = re.sub(r"^\s*//.*$", "", text, flags=re.M)
            where = str(path.relative_to(repository))
            words = set(MAKERS.findall(text))
            for literal in TEXT.findall(text):
                literal = re.sub(r"\\\n\s*", "", literal)
                if " ! " in literal or literal.endswith(" !"):
                    words |= set(HEAD.findall(literal))
                elif LOOK.fullmatch(literal):
                    words.add(literal)
            for word in words - NOT:
                found.setdefault(word, where)
    return found


def table(layer: Layer) -> dict:
    """What is known of elements and their packages."""
    return tomllib.loads((layer.root / "checks/known.toml").read_text(encoding="utf-8"))


def elements(layer: Layer, parsed: Parsed) -> list[str]:
    """The recipe brings every element that the HAL names, and nothing of GStreamer's that it does not."""
    used, known = named(layer.repository), table(layer)
    package_of = {element: package for package, names in known["elements"].items() for element in names}
    none = {element for names in known["unpackaged"].values() for element in names}
    problems = [f"{where}: known.toml does not know the element {e}" for e, where in sorted(used.items()) if e not in package_of and e not in none]
    problems += [f"known.toml: no source names the element {e}" for e in sorted((set(package_of) | none) - set(used))]
    needed = {package_of[e]: e for e in used if e in package_of}
    needed |= {package: e for e, packages in known["brings"].items() if e in used for package in packages}
    for where, data in parsed.of("mos"):
        words = ((data.getVar(f"{variable}:mos") or "").split() for variable in ("RDEPENDS", "RRECOMMENDS"))
        possible = {word for listed in words for word in listed}
        for name, value in (data.getVarFlags("PACKAGECONFIG") or {}).items():
            if name not in ("doc", "func"):
                possible |= {p for field in value.split(",")[3:5] for p in field.split()}
        # Everything depends on GStreamer itself.
        possible.add("gstreamer1.0")
        problems += [f"{where}: nothing brings {p}, which has {e}" for p, e in sorted(needed.items()) if p not in possible]
        problems += [f"{where}: brings {p}, of which no element is used" for p in sorted(possible - set(needed)) if GST_PLUGINS.match(p)]
    return problems


def plugins(layer: Layer, _parsed: Parsed) -> list[str]:
    """The packages of known.toml are called after the plugins that have the elements, as this machine's GStreamer tells."""
    problems, asked = [], 0
    for package, names in table(layer)["elements"].items():
        wanted = GST_PLUGINS.match(package)
        for element in names if wanted else []:
            told = subprocess.run(["gst-inspect-1.0", element], capture_output=True, text=True, check=False).stdout
            file = re.search(r"^\s*Filename\s+\S*/libgst(\w+)\.so$", told, flags=re.M)
            asked += bool(file)
            if file and file[1] != wanted[1]:
                problems.append(f"known.toml: {element} is in the plugin {file[1]}, not in {package}")
    return problems if asked > 10 else [f"only {asked} elements are installed here: nothing was compared"]


CHECKS = [elements, plugins]
