"""Checks of recipes against the repository and against themselves. Each takes the layer and what was parsed, and returns the
problems it found as text; an empty list is a pass. No check changes anything."""

import hashlib
import re
import tomllib

import crates
from parse import KNOWN, Layer, Parsed

# `NAME:over:rides[flag] =` of an assignment, `name:over:ride() {` of a function.
ASSIGNED = re.compile(r"^\s*(?:export\s+)?(?P<key>[A-Za-z0-9_.+\-]+(?:\$\{[A-Za-z0-9_]+\}|[A-Za-z0-9_.+:\-])*)"
                      r"(?:\[[^\]]+\])?\s*(?:\?\?=|\?=|:=|\+=|=\+|\.=|=\.|=)")
FUNCTION = re.compile(r"^\s*(?:fakeroot\s+|python\s+)*(?P<key>[A-Za-z0-9_\-]+(?::[A-Za-z0-9_.\-]+)+)\s*\(\)")
OPERATORS = {"append", "prepend", "remove"}
# Recipes whose source is the repository.
FROM_REPOSITORY = ["mos", "mos-device-tree"]
# Variables whose overrides name packages.
BY_PACKAGE = {"RDEPENDS", "RRECOMMENDS", "RSUGGESTS", "RPROVIDES", "RCONFLICTS", "FILES", "CONFFILES", "SYSTEMD_SERVICE", "USERADD_PARAM",
              "GROUPADD_PARAM", "SUMMARY", "DESCRIPTION", "ALLOW_EMPTY", "INSANE_SKIP"}


def parses(_layer: Layer, parsed: Parsed) -> list[str]:
    """bitbake's parser reads every recipe on every machine, without error or warning."""
    return parsed.problems


def crate_list(layer: Layer, _parsed: Parsed) -> list[str]:
    """mos-crates.inc is the list of Cargo.lock: name, version, SHA-256."""
    return crates.differences(layer.repository / "Cargo.lock", layer.recipe("mos").parent / "mos-crates.inc")


def crate_sums(_layer: Layer, parsed: Parsed) -> list[str]:
    """bitbake finds the checksum of every crate, in the recipe's words."""
    problems = []
    for where, data in parsed.of("mos"):
        flags = data.getVarFlags("SRC_URI") or {}
        uris = [u for u in data.getVar("SRC_URI").split() if u.startswith("crate://")]
        for uri in uris:
            name = "-".join(uri.rsplit("/", 2)[1:])
            if not re.fullmatch(r"[0-9a-f]{64}", flags.get(f"{name}.sha256sum", "")):
                problems.append(f"{where}: no SHA-256 of {name}")
        if not uris:
            problems.append(f"{where}: no crates")
    return problems


def licence_sums(layer: Layer, parsed: Parsed) -> list[str]:
    """LIC_FILES_CHKSUM of recipes from the repository is the MD5 of its own licence files."""
    problems = []
    for where, data in (found for name in FROM_REPOSITORY for found in parsed.of(name)):
        for entry in data.getVar("LIC_FILES_CHKSUM").split():
            name, _, wanted = entry.removeprefix("file://").partition(";md5=")
            path = layer.repository / name
            found = hashlib.md5(path.read_bytes()).hexdigest() if path.is_file() else "no such file"
            if found != wanted:
                problems.append(f"{where}: {name} is {found}, not {wanted}")
    return problems


def local_files(_layer: Layer, parsed: Parsed) -> list[str]:
    """Every file:// of a recipe or bbappend exists where bitbake looks for it."""
    problems = []
    for where, _path, data in parsed.all():
        folders = (data.getVar("FILESPATH") or "").split(":")
        folders = (data.getVar("FILESEXTRAPATHS") or "").removesuffix("__default:").split(":") + folders
        for uri in (data.getVar("SRC_URI") or "").split():
            if uri.startswith("file://"):
                name = uri.removeprefix("file://").split(";")[0]
                if not any(_exists(folder, name) for folder in folders if folder):
                    problems.append(f"{where}: {name} is in none of its folders")
    return problems


def _exists(folder: str, name: str) -> bool:
    from pathlib import Path

    return (Path(folder) / name).is_file()


def features(layer: Layer, parsed: Parsed) -> list[str]:
    """PACKAGECONFIG names cargo features of app/Cargo.toml, all and no others, and enables only entries that it has."""
    manifest = tomllib.loads((layer.repository / "app/Cargo.toml").read_text(encoding="utf-8"))
    existing = set(manifest.get("features", {}))
    problems = []
    for where, data in parsed.of("mos"):
        entries = {k: v for k, v in (data.getVarFlags("PACKAGECONFIG") or {}).items() if k not in ("doc", "func")}
        for name, value in entries.items():
            fields = value.split(",")
            for feature in re.findall(r"--features[ =](\S+)", " ".join(fields[:2])):
                problems += [f"{where}: no cargo feature {f}" for f in feature.split(",") if f not in existing]
            if len(fields) > 6:
                problems.append(f"{where}: PACKAGECONFIG[{name}] has {len(fields)} fields")
        enabled = " ".join(entries.values())
        problems += [f"{where}: no PACKAGECONFIG switches the cargo feature {feature} on" for feature in sorted(existing - {"default"})
                     if not re.search(rf"--features[ =](\S+,)?{feature}\b", enabled)]
        problems += [f"{where}: no PACKAGECONFIG[{n}]" for n in data.getVar("PACKAGECONFIG").split() if n not in entries]
    return problems


def overrides(layer: Layer, _parsed: Parsed) -> list[str]:
    """Every override exists on some board: a misspelt one would never match and nobody would hear of it."""
    machines = set(KNOWN["machines"]) | {m["board"] for m in KNOWN["machines"].values() if "board" in m}
    known = set(KNOWN["overrides"]) | machines | OPERATORS
    return [f"{where}: no machine has the override {word}" for where, word in _words(layer) if word not in known]


def _words(layer: Layer):
    """(where, override) of every assignment and function; names of packages, tasks and classes are none."""
    for path in sorted(p for kind in ("*.bb", "*.inc", "*.bbappend", "*.conf") for p in layer.root.rglob(kind)):
        if path.parent.name == "files":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = ASSIGNED.match(line) or FUNCTION.match(line)
            name, *rest = match["key"].split(":") if match else [""]
            for word in rest:
                package = word.startswith(("${PN}", "packagegroup-")) and name in BY_PACKAGE
                if word and not package and not re.match(r"(pn|class|task)-", word):
                    yield f"{layer.relative(path)}:{number}", word


def packages(layer: Layer, parsed: Parsed) -> list[str]:
    """Every run-time package that a build names is made by this layer or by another one that is in that build."""
    ours = {p.stem.split("_")[0] for p in layer.recipes()}
    ours |= {p for _where, _path, data in parsed.all() for p in (data.getVar("PACKAGES") or "").split()}
    everywhere = ours | {name for names in KNOWN["packages"].values() for name in names}
    problems = []
    for where, _path, data in parsed.all():
        here = set(data.getVar("BBFILE_COLLECTIONS").split())
        known = ours | {p for collection, names in KNOWN["packages"].items() if collection in here for p in names}
        pn, wanted, possible = data.getVar("PN"), set(), set()
        for variable in ("RDEPENDS", "RRECOMMENDS"):
            for package in data.getVar("PACKAGES").split():
                wanted |= set((data.getVar(f"{variable}:{package}") or "").split())
        for name, value in (data.getVarFlags("PACKAGECONFIG") or {}).items():
            if name not in ("doc", "func"):
                brought = {p for field in value.split(",")[3:5] for p in field.split()}
                possible |= brought
                wanted |= brought if name in data.getVar("PACKAGECONFIG").split() else set()
        problems += [f"{where}: no layer makes the package {p}" for p in sorted((wanted | possible) - everywhere)]
        problems += [f"{where}: no layer of that build makes the package {p}" for p in sorted((wanted & everywhere) - known)]
    return problems


def sources(layer: Layer, parsed: Parsed) -> list[str]:
    """What a recipe installs from the repository is there, and what it has Cargo build are packages and libraries of the workspace."""
    workspace = tomllib.loads((layer.repository / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]
    manifests = [tomllib.loads((layer.repository / m / "Cargo.toml").read_text(encoding="utf-8"))
                 for m in workspace["members"] if (layer.repository / m / "Cargo.toml").is_file()]
    crates_here = {m["package"]["name"] for m in manifests}
    libraries = {f"lib{m['package']['name'].replace('-', '_')}.so" for m in manifests if "cdylib" in m.get("lib", {}).get("crate-type", [])}
    problems = []
    for where, data in (found for name in FROM_REPOSITORY for found in parsed.of(name)):
        body = data.getVar("do_install", False) or ""
        for name in re.findall(r"\$\{S\}/([^\s\"$]+)", body):
            if not (layer.repository / name).exists():
                problems.append(f"{where}: the repository has no {name}")
        problems += [f"{where}: no crate of the workspace is the library {name}" for name in re.findall(r"\$\{MOS_BUILT\}/([\w.]+)", body)
                     if name not in libraries]
        built = data.getVar("MOS_BUILT") or "/"
        if not built.startswith("/") or "${" in built:
            problems.append(f"{where}: MOS_BUILT is no folder: {built}")
        for variable in ("CARGO_BUILD_FLAGS", "EXTRA_CARGO_FLAGS"):
            told = re.findall(r"--package (\S+)", data.getVar(variable) or "")
            problems += [f"{where}: {variable}: the workspace has no crate {name}" for name in told if name not in crates_here]
            if data.getVar("PN") == "mos" and set(told) != {"mos", "mos-frame-gst"}:
                problems.append(f"{where}: {variable} builds {told}, not the program and the plugin")
    return problems


def names(layer: Layer, _parsed: Parsed) -> list[str]:
    """layer.conf names only collections that exist; bbappends only recipes that do; series are those that are parsed."""
    conf = (layer.root / "conf/layer.conf").read_text(encoding="utf-8")
    used = set(re.findall(r"([a-z][a-z0-9\-]+):\$\{LAYERDIR\}/dynamic-layers", conf))
    used |= {w for v in ("LAYERDEPENDS", "LAYERRECOMMENDS") for w in re.search(rf'{v}_mos = "([^"]*)"', conf)[1].split()}
    problems = [f"layer.conf: no layer has the collection {c}" for c in sorted(used - set(KNOWN["collections"]))]
    problems += [f"layer.conf: no folder dynamic-layers/{c}" for c in sorted(used)
                 if f"/dynamic-layers/{c}/" in conf and not (layer.root / "dynamic-layers" / c).is_dir()]
    for path in layer.appends():
        if path.name.split("_")[0].removesuffix(".bbappend") not in KNOWN["appended"]:
            problems.append(f"{layer.relative(path)}: no layer has such a recipe")
    series = set(re.search(r'LAYERSERIES_COMPAT_mos = "([^"]*)"', conf)[1].split())
    parsed = {s for m in KNOWN["machines"].values() for s in m["series"]}
    if series != parsed:
        problems.append(f"layer.conf: LAYERSERIES_COMPAT is {sorted(series)}, parsed are {sorted(parsed)}")
    return problems


def version(layer: Layer, _parsed: Parsed) -> list[str]:
    """Recipes from the repository have the version of the crate."""
    manifest = tomllib.loads((layer.repository / "Cargo.toml").read_text(encoding="utf-8"))
    wanted, paths = manifest["workspace"]["package"]["version"], [layer.recipe(name) for name in FROM_REPOSITORY]
    wrong = [path for path in paths if path.stem.split("_")[1] != wanted]
    return [f"{layer.relative(path)}: the crate is {wanted}; rename the recipe" for path in wrong]


def documents(layer: Layer, _parsed: Parsed) -> list[str]:
    """README, SECURITY and COPYING say what yocto-check-layer and readers look for."""
    wanted = {
        "README.md": ["Maintainers", "Patches", "## Dependencies", "make yocto-check"],
        "SECURITY.md": ["report a vulnerability", "Supported"],
        "COPYING": ["SPDX-License-Identifier"],
    }
    problems = []
    for name, phrases in wanted.items():
        path = layer.root / name
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        problems += [f"{name}: does not say `{phrase}`" for phrase in phrases if phrase not in text]
    readme = (layer.root / "README.md").read_text(encoding="utf-8") if (layer.root / "README.md").is_file() else ""
    if "@" not in readme and "README" not in readme:
        problems.append("README.md: yocto-check-layer wants an address, or a word about another README")
    problems += [f"README.md: no word about the recipe {p.stem.split('_')[0]}" for p in layer.recipes()
                 if f"`{p.stem.split('_')[0]}`" not in readme]
    for path in layer.recipes():
        for entry in re.findall(r"PACKAGECONFIG\[([a-z0-9-]+)\]", path.read_text(encoding="utf-8")):
            if f"`{entry}`" not in readme:
                problems.append(f"README.md: no word about PACKAGECONFIG[{entry}]")
    for name in sorted(used_overrides(layer)):
        if f"| `{name}` |" not in readme:
            problems.append(f"README.md: no word about the override {name}")
    return problems


def used_overrides(layer: Layer) -> set[str]:
    """The overrides of machines by which recipes and bbappends differ."""
    return {word for _where, word in _words(layer) if word in KNOWN["overrides"] or word in KNOWN["machines"]}


CHECKS = [parses, crate_list, crate_sums, licence_sums, local_files, features, overrides, packages, sources, names, version, documents]
