"""Checks of systemd units and settings: against the recipe, against the program's own settings, against systemd."""

import re
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

from parse import KNOWN, Layer, Parsed

# Without these a unit of a recorder is not what README.md and SECURITY.md promise.
PROMISED = {
    "Type": "notify", "WatchdogSec": None, "User": None, "ProtectSystem": "strict", "DevicePolicy": "closed", "MemoryMax": None,
    "CPUQuota": None, "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "Restart": "always",
}
# What would harden most services and breaks this one: setting, value that is meant, what would break.
BREAKING = [
    ("RestrictSUIDSGID", "yes", "forbids openat2, by which the archive opens its files"),
    ("ProtectClock", "yes", "forbids to ask whether the clock is set (clock_adjtime)"),
    ("MemoryDenyWriteExecute", "yes", "GStreamer's ORC compiles at run time"),
    ("PrivateDevices", "yes", "hides cameras and codecs"),
    ("PrivateNetwork", "yes", "hides network cameras"),
    ("PrivateUsers", "yes", "hides groups of callers and of devices"),
    ("ProcSubset", "pid", "hides /proc/device-tree and the boot id"),
]
# Exposure of 10 that `systemd-analyze security` may find at most.
EXPOSURE = 2.5


def settings(path: Path) -> list[tuple[str, str]]:
    """The assignments of a unit file in their order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(k.strip(), v.strip()) for k, e, v in (line.partition("=") for line in lines) if e and not k.startswith("#")]


def unit_and_recipe(layer: Layer, parsed: Parsed) -> list[str]:
    """The unit starts the recipe's binary as the recipe's user, with its settings; the recipe enables what it installs."""
    folder = layer.recipe("mos").parent / "files"
    unit = dict(settings(folder / "mos.service"))
    problems = []
    for where, data in parsed.of("mos"):
        user = data.getVar("USERADD_PARAM:mos").split()[-1]
        groups = set(re.findall(r"--system (\S+?)(?:;|$)", data.getVar("GROUPADD_PARAM:mos")))
        binary, _, rest = unit.get("ExecStart", "").partition(" ")
        config = rest.split("--config ")[-1] if "--config " in rest else ""
        wanted = {f"{data.getVar('bindir')}/{data.getVar('PN')}"}
        if binary not in wanted:
            problems.append(f"{where}: mos.service starts {binary}, the recipe installs {wanted.pop()}")
        if unit.get("User") != user:
            problems.append(f"{where}: mos.service runs as {unit.get('User')}, the recipe makes the user {user}")
        for group in [unit.get("Group", "")] + unit.get("SupplementaryGroups", "").split():
            if group not in groups:
                problems.append(f"{where}: the recipe makes no group {group}")
        if config not in (data.getVar("CONFFILES:mos") or "").split():
            problems.append(f"{where}: {config} is not among the recipe's CONFFILES")
        for name in data.getVar("SYSTEMD_SERVICE:mos").split():
            if not (folder / name).is_file():
                problems.append(f"{where}: SYSTEMD_SERVICE names {name}, which is not there")
    for line in (folder / "mos.tmpfiles").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#") and line.split()[3] not in ("root", unit.get("User")):
            problems.append(f"mos.tmpfiles: nobody is called {line.split()[3]}")
    return problems


def writable(unit: dict[str, str]) -> list[str]:
    """The folders that a unit may write to."""
    return [path.lstrip("-") for path in unit.get("ReadWritePaths", "").split()]


def unit_promises(layer: Layer, _parsed: Parsed) -> list[str]:
    """The sandbox is what the documents promise, every writable folder is made, and the clock's state can be asked."""
    folder = layer.recipe("mos").parent / "files"
    pairs = settings(folder / "mos.service")
    unit = dict(pairs)
    problems = [f"mos.service: {k}= is {unit.get(k)}" for k, v in PROMISED.items() if unit.get(k) is None or v not in (None, unit[k])]
    made = {line.split()[1] for line in (folder / "mos.tmpfiles").read_text(encoding="utf-8").splitlines() if line.startswith("d ")}
    problems += [f"mos.service: {p} is writable but not made by mos.tmpfiles" for p in writable(unit) if p not in made]
    problems += [f"mos.service: {key}={value} {why}" for key, value, why in BREAKING if unit.get(key) == value]
    return problems


def system_calls(layer: Layer, _parsed: Parsed) -> list[str]:
    """The unit's filter lets every system call of known.toml through, by systemd's own sets."""
    sets: dict[str, list[str]] = {}
    for line in _run(["systemd-analyze", "syscall-filter", "--no-pager"]).stdout.splitlines():
        if line.startswith(("@", "# @")):
            current = sets.setdefault(line.lstrip("# "), [])
        elif line.startswith("    ") and not line.strip().startswith("#"):
            current.append(line.strip())
    pairs = settings(layer.recipe("mos").parent / "files/mos.service")
    waiting, allowed = [word for key, value in pairs if key == "SystemCallFilter" for word in value.split()], set()
    while waiting:
        word = waiting.pop()
        waiting += sets.get(word, [])
        allowed.add(word)
    return [f"mos.service: its filter refuses {call}" for call in KNOWN["calls"] if call not in allowed]


def firmware_settings(layer: Layer, parsed: Parsed) -> list[str]:
    """The firmware's mos.toml uses keys that app/mos.toml documents; socket, root and key are those of the units, groups the recipe's."""
    folder = layer.recipe("mos").parent / "files"
    documented, section = set(), ""
    for line in (layer.repository / "app/mos.toml").read_text(encoding="utf-8").splitlines():
        section = line.strip("[] ") if line.startswith("[") else section
        key = re.match(r"#?([a-z_]+) = ", line)
        if key:
            documented.add((section, key[1]))
    toml = tomllib.loads((folder / "mos.toml").read_text(encoding="utf-8"))
    problems = [f"mos.toml: app/mos.toml documents no {s}.{k}" for s, keys in toml.items() for k in keys if (s, k) not in documented]
    listened = dict(settings(folder / "mos.socket")).get("ListenStream") if (folder / "mos.socket").is_file() else toml["http"]["unix_socket"]
    for where, data in parsed.of("mos"):
        made = set(re.findall(r"--system (\S+?)(?:;|$)", data.getVar("GROUPADD_PARAM:mos")))
        named = [n.lstrip("@") for role in ("admins", "operators", "viewers") for n in toml["http"].get(role, "").split() if n.startswith("@")]
        problems += [f"{where}: mos.toml gives a role to the group {name}, which nobody makes" for name in named if name not in made]
    if toml["http"]["unix_socket"] != listened:
        problems.append(f"mos.toml: unix_socket is not {listened}, where mos.socket listens")
    folders = writable(dict(settings(folder / "mos.service")))
    if toml["storage"]["root"] not in folders:
        problems.append("mos.toml: mos.service may not write to storage.root")
    # The recorder makes its key and keeps a ledger beside it.
    for key in re.findall(r'^#?key_file = "(.*/device\.key)"', (layer.repository / "app/mos.toml").read_text(encoding="utf-8"), re.M):
        if str(Path(key).parent) not in folders:
            problems.append(f"app/mos.toml: mos.service may not write beside evidence.key_file, {key}")
    return problems


def systemd(layer: Layer, _parsed: Parsed) -> list[str]:
    """systemd knows every setting of the units, and finds little to attack."""
    problems = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in (layer.recipe("mos").parent / "files").glob("mos.s*"):
            text = path.read_text(encoding="utf-8")
            # The program is not on this machine.
            (folder / path.name).write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.M), encoding="utf-8")
        mount = layer.recipe("mos-data").parent / "files/data.mount.in"
        (folder / "data.mount").write_text(mount.read_text(encoding="utf-8").replace("@DEVICE@", "/dev/sda1"), encoding="utf-8")
        units = sorted(p for p in folder.iterdir())
        verify = _run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, units)])
        problems += [line for line in verify.stderr.splitlines() if any(u.name in line for u in units)]
        if verify.returncode != 0 and not problems:
            problems.append(f"systemd-analyze verify: {verify.stderr.strip()[-300:]}")
        exposed = _run(["systemd-analyze", "security", "--offline=yes", "--no-pager", str(folder / "mos.service")])
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", exposed.stdout)
        if not found:
            problems.append(f"systemd-analyze security: {exposed.stderr.strip()[-300:]}")
        elif float(found[1]) > EXPOSURE:
            problems.append(f"mos.service: exposure {found[1]}, at most {EXPOSURE}")
    return problems


def _run(command: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def shell(layer: Layer, parsed: Parsed) -> list[str]:
    """shellcheck has nothing to say about scripts, nor about the shell functions of recipes."""
    problems = []
    scripts = [p for p in sorted(layer.root.rglob("*")) if p.is_file() and "checks" not in p.parts and p.read_bytes()[:9] == b"#!/bin/sh"]
    for path in scripts:
        problems += [f"{layer.relative(path)}: {line}" for line in _shellcheck(path.read_text(encoding="utf-8"))]
    seen = set()
    for _where, path, data in parsed.all():
        for name in ("do_configure", "do_install", "do_install_ptest", "do_update_crates"):
            body = data.getVar(name, False)
            # In a recipe bitbake replaces ${NAME} before the shell sees it.
            body = re.sub(r"\$\{[A-Za-z0-9_]+\}", "word", body) if isinstance(body, str) else ""
            if body and (path, body) not in seen:
                seen.add((path, body))
                problems += [f"{path}: {name}: {line}" for line in _shellcheck(f"#!/bin/sh\n{body}", "SC2050,SC2194")]
    if not scripts or not seen:
        problems.append("no shell code was found")
    return problems


def _shellcheck(text: str, exclude: str = "SC1000") -> list[str]:
    found = subprocess.run(["shellcheck", "--format=gcc", f"--exclude={exclude}", "-"], input=text, capture_output=True, text=True, check=False)
    return (found.stdout + found.stderr).splitlines()


def missing_tools() -> list[str]:
    """Programs that the checks need and Debian has."""
    return [tool for tool in ("shellcheck", "systemd-analyze", "git", "dtc", "fdtoverlay", "gst-inspect-1.0") if not shutil.which(tool)]


CHECKS = [unit_and_recipe, unit_promises, system_calls, firmware_settings, systemd, shell]
