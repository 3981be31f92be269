"""Checks by the field's own tools: oelint-adv for style, kas' schema for its files, wic's and cargo-cross' formats.

Promises: findings of oelint-adv are judged for each series with this layer's machines and variables made known to it; what is
not followed here is named in SUPPRESSED with the reason. Fetches nothing.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import jsonschema
import yaml

from parse import KNOWN, Layer, Parsed

# Rules of oelint-adv that are not followed, and why.
SUPPRESSED = {
    "oelint.var.mandatoryvar.HOMEPAGE": "the repository has no public page yet",
    "oelint.var.suggestedvar.BUGTRACKER": "nor a public tracker",
    "oelint.var.suggestedvar.CVE_PRODUCT": "the image, bundle and data mount are no products of their own",
    "oelint.var.bbclassextend": "nothing here runs on the build machine",
    "oelint.vars.notneededspace": "lists begin on their own line, as in oe-core",
    "oelint.vars.inconspaces": "the same",
    "oelint.vars.multilineident": "sentences go on at the margin",
    "oelint.var.inherit.inherit_defer": "the class is chosen in the configuration, before the recipe is read",
    "oelint.var.licenseremotefile": "the recipe's own files have no upstream",
    "oelint.vars.layerconf": "layer.conf bridges two series on purpose, see there",
    "oelint.vars.noncoreoverride": "only the search path is extended; the file is added for our machines alone",
    "oelint.var.mandatoryvar.SRC_URI": "a bundle has no source",
    "oelint.file.underscores": "images and bundles carry no version, as in oe-core",
}
# Variables of ours and of layers that oelint-adv does not know.
VARIABLES = [
    "MOS_LAYERDIR", "MOS_CARGO_CLASS", "MOS_GIT_URI", "MOS_DATA_DEVICE", "MOS_DATA_GROW", "EXTRA_CARGO_FLAGS", "QB_KERNEL_ROOT", "UNPACKDIR",
    "RAUC_BUNDLE_COMPATIBLE", "RAUC_BUNDLE_DESCRIPTION", "RAUC_BUNDLE_FORMAT", "RAUC_BUNDLE_SLOTS", "RAUC_SLOT_rootfs",
]


def style(layer: Layer, _parsed: Parsed) -> list[str]:
    """oelint-adv finds nothing that is not in SUPPRESSED, in either series."""
    files = [str(p) for p in layer.recipes() + layer.appends()] + [str(layer.root / "conf/layer.conf")]
    known = [*KNOWN["overrides"], *KNOWN["machines"]]
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        constants = Path(folder) / "constants.json"
        constants.write_text(json.dumps({"replacements": {"machines": known}, "variables": {"known": VARIABLES}}), encoding="utf-8")
        suppress = [word for rule in SUPPRESSED for word in ("--suppress", rule)]
        for series in sorted({s for m in KNOWN["machines"].values() for s in m["series"]}):
            command = [str(Path(sys.executable).parent / "oelint-adv"), "--quiet", "--jobs", "1", "--release", series, "--messageformat",
                       "{path}:{line}: {id}: {msg}", *suppress, *files, "--constantmods", f"+{constants}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, "HOME": folder})
            lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
            problems += [f"{series}: {line.replace(str(layer.repository) + '/', '')}" for line in lines]
            if done.returncode != 0 and not lines:
                problems.append(f"{series}: oelint-adv ended with {done.returncode}")
    return problems


def kas(layer: Layer, _parsed: Parsed) -> list[str]:
    """kas' own schema takes every file; what it includes exists; every repository is pinned; machines are known."""
    import kas as package

    schema = json.loads((Path(package.__file__).parent / "schema-kas.json").read_text(encoding="utf-8"))
    files = sorted((layer.root / "kas").glob("*.yml"))
    boards = {m.get("board", name) for name, m in KNOWN["machines"].items()}
    problems = [] if files else ["there are no kas files"]
    for path in files:
        where = layer.relative(path)
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        problems += [f"{where}: {error.message}" for error in jsonschema.Draft7Validator(schema).iter_errors(content)]
        for included in content.get("header", {}).get("includes", []):
            if not (layer.repository / included).is_file():
                problems.append(f"{where}: includes {included}, which is not there")
        for name, repository in (content.get("repos") or {}).items():
            if repository and "url" in repository and not re.fullmatch(r"[0-9a-f]{40}", repository.get("commit", "")):
                problems.append(f"{where}: {name} is not pinned to a commit")
        lines = "\n".join((content.get("local_conf_header") or {}).values())
        for value in re.findall(r'(?:INHERIT|IMAGE_CLASSES) \+?= "([^"]*)"', lines):
            problems += [f"{where}: not both series have the class {c}" for c in value.split() if c not in KNOWN["configured"]]
        if "machine" in content and content["machine"] not in boards:
            problems.append(f"{where}: no checks know the machine {content['machine']}")
    return problems


def partitions(layer: Layer, parsed: Parsed) -> list[str]:
    """Every machine's wic file exists, is written in wic's words, and has the data partition that mos-data mounts and grows."""
    problems, grown = [], (layer.recipe("mos-data").parent / "files/50-data.conf").read_text(encoding="utf-8")
    kind = re.search(r"^Type=(\S+)$", grown, flags=re.M)[1]
    for where, data in parsed.of("mos-image"):
        name = data.getVar("WKS_FILE")
        if not name:
            continue
        path = layer.root / "files/wic" / name
        if not path.is_file():
            problems.append(f"{where}: no files/wic/{name}")
            continue
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
        words = [line.split()[0] for line in lines]
        problems += [f"{name}: {w} is no command of wic" for w in words if w not in ("part", "bootloader")]
        data_line = next((line for line in lines if line.startswith("part /data ")), "")
        if "--part-name data" not in data_line or f"--part-type {kind}" not in data_line:
            problems.append(f"{name}: no partition /data named `data` of the type {kind}, which mos-data mounts and grows")
        if "--no-fstab-update" not in data_line:
            problems.append(f"{name}: wic's line in fstab would take the place of data.mount and its options")
    return problems


def cross(layer: Layer, _parsed: Parsed) -> list[str]:
    """cross.toml has only tables and keys of cross 0.2.5, and installs for aarch64 what the crates link with."""
    path = layer.repository / "cross.toml"
    if not path.is_file():
        return ["cross.toml is not there"]
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        return [f"cross.toml: {error}"]
    allowed = {"build": {"default-target", "env", "pre-build", "target-dir", "xargo", "zig", "build-std", "dockerfile"}, "target": None}
    keys = {"xargo", "build-std", "zig", "image", "runner", "env", "pre-build", "dockerfile"}
    problems = [f"cross.toml: cross knows no table {t}" for t in content if t not in allowed]
    problems += [f"cross.toml: cross knows no build.{k}" for k in content.get("build", {}) if k not in allowed["build"]]
    for target, table in content.get("target", {}).items():
        problems += [f"cross.toml: cross knows no target.{target}.{k}" for k in table if k not in keys]
    steps = " ".join(content.get("target", {}).get("aarch64-unknown-linux-gnu", {}).get("pre-build", []))
    architecture = "$CROSS_DEB_ARCH"
    for package in ("libgstreamer1.0-dev", "libgstreamer-plugins-base1.0-dev", "libgstrtspserver-1.0-dev"):
        if f"{package}:{architecture}" not in steps:
            problems.append(f"cross.toml: aarch64 does not install {package}:{architecture}")
    passed = content.get("target", {}).get("aarch64-unknown-linux-gnu", {}).get("env", {}).get("passthrough", [])
    if not any(word.startswith("PKG_CONFIG_PATH=") for word in passed):
        problems.append("cross.toml: pkg-config is not pointed at the libraries of aarch64")
    return problems


CHECKS = [style, kas, partitions, cross]
