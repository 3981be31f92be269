"""Parses the layer with bitbake's own parser, once per machine and series, without any other layer.

Promises: syntax errors, unknown classes and failing inline Python are found as bitbake would find them; what a recipe's
variables are worth on a machine can be asked. Classes of other layers are empty stand-ins, so nothing is known of what they add.
Never runs a task.
"""

import logging
import os
import sys
import tempfile
import tomllib
import types
from pathlib import Path

# bitbake's library names these at import; they are not in the package and not needed to parse.
sys.modules.setdefault("hashserv", types.ModuleType("hashserv"))
sys.modules.setdefault("hashserv.client", types.ModuleType("hashserv.client"))

import bb  # noqa: E402
import bb.data  # noqa: E402
import bb.parse  # noqa: E402
import bb.siggen  # noqa: E402

KNOWN = tomllib.loads((Path(__file__).parent / "known.toml").read_text(encoding="utf-8"))

# What bitbake.conf of oe-core would say, as far as this layer uses it.
BASE = {
    "TMPDIR": "/nowhere", "WORKDIR": "${TMPDIR}/work/${PN}", "B": "${S}", "D": "${WORKDIR}/image",
    "P": "${PN}-${PV}", "BP": "${BPN}-${PV}", "BPN": "${PN}", "PN": "${@bb.parse.vars_from_file(d.getVar('FILE'), d)[0]}",
    "PV": "${@bb.parse.vars_from_file(d.getVar('FILE'), d)[1] or '1.0'}", "PR": "r0",
    "FILE_DIRNAME": "${@os.path.dirname(d.getVar('FILE'))}", "COREBASE": "/nowhere/oe-core",
    "FILESPATH": "${FILE_DIRNAME}/${BP}:${FILE_DIRNAME}/${BPN}:${FILE_DIRNAME}/files",
    "bindir": "/usr/bin", "libdir": "/usr/lib", "includedir": "/usr/include", "docdir": "/usr/share/doc", "sysconfdir": "/etc", "nonarch_libdir": "/usr/lib", "nonarch_base_libdir": "/usr/lib", "systemd_system_unitdir": "/usr/lib/systemd/system",
    "localstatedir": "/var", "PTEST_PATH": "/usr/lib/${BPN}/ptest", "MACHINE_ARCH": "${@d.getVar('MACHINE').replace('-', '_')}",
    "PACKAGES": "${PACKAGE_BEFORE_PN} ${PN} ${PN}-ptest",
}


class Layer:
    """One copy of the layer, and what the rest of the repository says that it must agree with."""

    def __init__(self, root: Path):
        self.repository = root
        self.root = root / "meta-mos"

    def recipes(self) -> list[Path]:
        """All recipes, those of dynamic layers too."""
        return sorted(self.root.rglob("*.bb"))

    def appends(self) -> list[Path]:
        """All bbappends."""
        return sorted(self.root.rglob("*.bbappend"))

    def recipe(self, name: str) -> Path:
        """The recipe of that name, of whatever version."""
        return next(path for path in self.recipes() if path.stem.split("_")[0] == name)

    def relative(self, path: Path) -> str:
        """How a path is called in messages."""
        return str(path.relative_to(self.repository))


def profiles() -> list[tuple[str, str, str]]:
    """Machine, series and overrides of every combination that is parsed."""
    return [(name, series, m["overrides"]) for name, m in KNOWN["machines"].items() for series in m["series"]]


class _Records(logging.Handler):
    """Errors and warnings of the parser, as text."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record):
        if record.levelno >= logging.WARNING:
            self.lines.append(record.getMessage())


def _stand_ins(folder: Path) -> None:
    """An empty class for each that is known; recipes that inherit another do not parse."""
    (folder / "classes").mkdir()
    for name in KNOWN["classes"]:
        (folder / "classes" / f"{name}.bbclass").write_text("", encoding="utf-8")


def store(layer: Layer, machine: str, series: str, overrides: str, classes: Path):
    """A datastore in which layer.conf was read, as bitbake has it before it reads recipes."""
    data = bb.data.init()
    for name, value in BASE.items():
        data.setVar(name, value)
    data.setVar("MACHINE", machine)
    data.setVar("LAYERSERIES_CORENAMES", series)
    data.setVar("OVERRIDES", f"linux:{overrides}:{machine}:pn-${{PN}}:class-target:forcevariable")
    data.setVar("BBPATH", str(classes))
    data.setVar("BBFILES", "")
    data.setVar("BBFILE_COLLECTIONS", " ".join(["core", *KNOWN["machines"][machine]["layers"]]))
    data.setVar("__bbclasstype", "recipe")
    if series == "wrynose":
        data.setVar("UNPACKDIR", "${WORKDIR}/sources")
        data.setVar("S", "${UNPACKDIR}/${BP}")
        data.setVar("CARGO_TARGET_SUBDIR", "aarch64/release")  # of the class cargo
    else:
        data.setVar("CARGO_BINDIR", "${B}/aarch64/release")  # of cargo_bin
        data.setVar("S", "${WORKDIR}/${BP}")
    bb.parse.init_parser(data)
    data.setVar("LAYERDIR", str(layer.root))
    data = bb.parse.handle(str(layer.root / "conf/layer.conf"), data, True)
    data.expandVarref("LAYERDIR")
    data.getVar("BBFILES_DYNAMIC")  # as bitbake does before it looks for recipes
    data.delVar("LAYERDIR")
    return data


def read(layer: Layer, path: Path, data):
    """The recipe's datastore on the machine of `data`; raises what bitbake raises. A bbappend is read on top of nothing."""
    data = data.createCopy()
    if path.suffix == ".bbappend":
        name = path.name.removesuffix(".bbappend").replace("_%", "_1.0")
        with tempfile.TemporaryDirectory() as folder:
            recipe = Path(folder) / f"{name}.bb"
            recipe.write_text("", encoding="utf-8")
            data.setVar("__BBAPPEND", str(path))
            data.setVar("FILE", str(recipe))
            return bb.parse.handle(str(recipe), data)[""]
    data.setVar("FILE", str(path))
    return bb.parse.handle(str(path), data)[""]


class Parsed:
    """Every recipe and bbappend of the layer on every machine, and what the parser had to say."""

    def __init__(self, layer: Layer):
        self._layer = layer
        self._problems: list[str] = []
        self._stores: dict[tuple[str, str, str], object] | None = None

    @property
    def problems(self) -> list[str]:
        """What the parser had to say."""
        self.stores  # noqa: B018, parses
        return self._problems

    @property
    def stores(self) -> dict:
        """The datastores by path, machine and series; parsed when first asked for."""
        if self._stores is None:
            self._stores = {}
            self._parse(self._layer)
        return self._stores

    def _parse(self, layer: Layer) -> None:
        logger = logging.getLogger("BitBake")
        logger.propagate = False
        with tempfile.TemporaryDirectory() as folder:
            _stand_ins(Path(folder))
            for machine, series, overrides in profiles():
                records = _Records()
                logger.handlers = [records]
                try:
                    data = store(layer, machine, series, overrides, Path(folder))
                except Exception as error:  # whatever a broken layer.conf raises
                    self._problems.append(f"layer.conf on {machine}, {series}: {error}")
                    continue
                for path in layer.recipes() + layer.appends():
                    where = f"{layer.relative(path)} on {machine}, {series}"
                    try:
                        self._stores[layer.relative(path), machine, series] = read(layer, path, data)
                    except bb.BBHandledException:
                        self._problems.append(f"{where}: cannot be parsed")
                    except Exception as error:  # bitbake raises many kinds
                        self._problems.append(f"{where}: {error}")
                self._problems += [f"{machine}, {series}: {line}" for line in records.lines]
        logger.handlers = []

    def of(self, name: str):
        """(where, datastore) of the recipe of that name on every machine."""
        for (path, machine, series), data in self.stores.items():
            if os.path.basename(path).split("_")[0].removesuffix(".bb") == name:
                yield f"{path} on {machine}, {series}", data

    def all(self):
        """(where, path, datastore) of all."""
        for (path, machine, series), data in self.stores.items():
            yield f"{path} on {machine}, {series}", path, data
