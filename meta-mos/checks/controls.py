"""The negative controls: for every check at least one fault in a copy of the layer that it must find, by name.

Promises: a check without a control is an error, and so is a control whose fault goes unfound or is found for another reason.
Works on copies in a temporary folder only.
"""

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from parse import Layer, Parsed

MOS = "meta-mos/recipes-multimedia/mos"
UNIT = f"{MOS}/files/mos.service"
CONF = "meta-mos/conf/layer.conf"
OVERLAYS = "meta-mos/recipes-bsp/mos-device-tree/mos-device-tree_*.bb"
BINDING = "device-tree/bindings/mos,lenses.yaml"
GMSL = "device-tree/overlays/qcs6490-rb3gen2-mos.dtso"
MIPI = "device-tree/overlays/imx8mp-evk-mos-two-mipi.dtso"
# What of the repository the checks read besides the layer.
BESIDE = ["Cargo.toml", "Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT", "cross.toml", "app/Cargo.toml", "app/mos.toml", "device-tree", "hal/Cargo.toml", "hal/src",
          "hal/frame-gst/Cargo.toml", "hal/frame-gst/src", "hal/frame/Cargo.toml", "hal/frame/include", "hal/frame/examples", "hal/frame/PROTOCOL.md"]


@dataclass(frozen=True)
class Control:
    """A fault: `check` must report it in words that match `reported`."""

    check: str
    fault: Callable[[Path], None]
    reported: str

    @property
    def name(self) -> str:
        """What was done, for messages."""
        return self.fault.__doc__ or self.check


def replaced(path: str, old: str, new: str) -> Callable[[Path], None]:
    """The fault that one text stands for another; it must have been there."""

    def fault(root: Path) -> None:
        file = _file(root, path)
        text = file.read_text(encoding="utf-8")
        if old not in text:
            raise AssertionError(f"control is out of date: {path} does not hold {old!r}")
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    fault.__doc__ = f"{path}: {old.strip()!r} became {new.strip()!r}"
    return fault


def removed(path: str) -> Callable[[Path], None]:
    """The fault that a file is missing."""

    def fault(root: Path) -> None:
        _file(root, path).unlink()

    fault.__doc__ = f"{path} is missing"
    return fault


def renamed(path: str, name: str) -> Callable[[Path], None]:
    """The fault that a file has another name."""

    def fault(root: Path) -> None:
        file = _file(root, path)
        file.rename(file.parent / name)

    fault.__doc__ = f"{path} is called {name}"
    return fault


def digit(path: str, pattern: str) -> Callable[[Path], None]:
    """The fault that the first digit of a checksum is another."""

    def fault(root: Path) -> None:
        file = _file(root, path)
        text = file.read_text(encoding="utf-8")
        at = re.search(pattern, text).end()
        file.write_text(text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1:], encoding="utf-8")

    fault.__doc__ = f"{path}: a wrong checksum"
    return fault


def _file(root: Path, path: str) -> Path:
    """A file by a path in which the recipe's version may be `*`."""
    found = sorted(root.glob(path))
    if len(found) != 1:
        raise AssertionError(f"control is out of date: {len(found)} files are called {path}")
    return found[0]


RECIPE = f"{MOS}/mos_*.bb"
CONTROLS = [
    Control("parses", replaced(RECIPE, "inherit ${MOS_CARGO_CLASS} cargo-update", "inherit ${MOS_CARGO_CLASS} kargo-update"), "kargo-update"),
    Control("parses", replaced(RECIPE, "do_install:append() {", "do_install:append( {"), "unparsed|ParseError|parse"),
    Control("parses", replaced(RECIPE, "require ${BPN}-crates.inc", "require ${BPN}-crate.inc"), "mos-crate.inc"),
    Control("parses", replaced(CONF, "d.getVar('LAYERSERIES_CORENAMES')", "d.getVarr('LAYERSERIES_CORENAMES')"), "getVarr|layer.conf"),
    Control("crate_list", digit(f"{MOS}/mos-crates.inc", r'sha256sum\] = "'), "not the list of Cargo.lock"),
    Control("crate_list", replaced("Cargo.lock", 'name = "axum"\nversion = "', 'name = "axum"\nversion = "9'), "missing: crate://crates.io/axum/9"),
    Control("crate_list", replaced("Cargo.lock", 'source = "registry+https://github.com/rust-lang/crates.io-index"', 'source = "git+https://example.org/a"'), "not from crates.io"),
    Control("crate_sums", replaced(f"{MOS}/mos-crates.inc", ".sha256sum]", ".sha1sum]"), "no SHA-256"),
    Control("licence_sums", digit(RECIPE, "LICENSE-MIT;md5="), "LICENSE-MIT is"),
    Control("licence_sums", removed("LICENSE-APACHE"), "no such file"),
    Control("local_files", removed(f"{MOS}/files/mos.tmpfiles"), "mos.tmpfiles is in none"),
    Control("local_files", renamed("meta-mos/files/kernel/mos.cfg", "moss.cfg"), r"bbappend.*mos.cfg is in none"),
    Control("features", replaced(RECIPE, '"--features demo,', '"--features demos,'), "no cargo feature demos"),
    Control("features", replaced("app/Cargo.toml", "\nlibcamera = [", "\nlibcam = ["), "no cargo feature libcamera"),
    Control("features", replaced("app/Cargo.toml", "\ndemo = [", "\ndemonstration = ["), "no cargo feature demo"),
    Control("features", replaced(RECIPE, '"v4l2 jpeg$', '"v4l2 jpg$'), r"no PACKAGECONFIG\[jpg\]"),
    Control("overrides", replaced(RECIPE, "PACKAGECONFIG:append:mx8mp-nxp-bsp", "PACKAGECONFIG:append:mx8mp"), "override mx8mp$"),
    Control("overrides", replaced(RECIPE, "PACKAGECONFIG:append:qcm6490", "PACKAGECONFIG:append:qcs6490"), "override qcs6490"),
    Control("overrides", replaced(RECIPE, "do_install:append:class-target()", "do_install:append:klass-target()"), "override klass-target"),
    Control("packages", replaced(RECIPE, "plugins-good-isomp4", "plugins-good-mp4"), "gstreamer1.0-plugins-good-mp4"),
    Control("packages", replaced(RECIPE, "libcamera-gst", "gstreamer1.0-libcamera"), "gstreamer1.0-libcamera"),
    Control("packages", replaced(RECIPE, '"v4l2 jpeg$', '"v4l2 jpeg libcamera$'), "no layer of that build makes the package libcamera-gst"),
    Control("packages", replaced("meta-mos/recipes-core/packagegroups/packagegroup-mos.bb", "    i2c-tools \\\n", "    v4l-utils \\\n"), "no layer of that build makes the package v4l-utils"),
    Control("elements", replaced(RECIPE, "    gstreamer1.0-plugins-bad-mpegtsdemux \\\n", ""), "nothing brings gstreamer1.0-plugins-bad-mpegtsdemux, which has tsdemux"),
    Control("elements", replaced(RECIPE, "gstreamer1.0-plugins-good-udp", "gstreamer1.0-plugins-good-audioparsers"), "nothing brings gstreamer1.0-plugins-good-udp"),
    Control("elements", replaced(RECIPE, '",,,,gstreamer1.0-plugins-bad-srt"', '",,,,"'), "nothing brings gstreamer1.0-plugins-bad-srt, which has srtsrc"),
    Control("elements", replaced(RECIPE, "plugins-good-rtsp ", "plugins-good-rtspclientsink "), "brings gstreamer1.0-plugins-good-rtspclientsink, of which no element is used"),
    Control("elements", replaced("hal/src/sources/srt.rs", '"srtsrc name', '"ristsrc name'), "known.toml does not know the element ristsrc"),
    Control("elements", replaced("hal/src/sources/srt.rs", '"srtsrc name', '"filesrc name'), "no source names the element srtsrc"),
    Control("elements", replaced("hal/src/codecs/families.rs", 'element: "jpegenc"', 'element: "vajpegenc"'), "does not know the element vajpegenc"),
    Control("plugins", replaced("meta-mos/checks/known.toml", '"gstreamer1.0-plugins-base-app" = ', '"gstreamer1.0-plugins-base-apps" = '), "appsink is in the plugin app, not in"),
    Control("packages", replaced(RECIPE, 'PACKAGE_BEFORE_PN = "${PN}-gstreamer"', 'PACKAGE_BEFORE_PN = "${PN}-gst"'), "no layer makes the package mos-gstreamer"),
    Control("sources", replaced(RECIPE, "os.path.join(d.getVar('B'), 'target', d.getVar('CARGO_TARGET_SUBDIR'))}", "d.expand('${B}/target/${CARGO_TARGET_SUBDIR}')}"), "scarthgap: MOS_BUILT is no folder"),
    Control("sources", renamed("hal/frame/include/mos_frame.h", "mos_frames.h"), "the repository has no hal/frame/include/mos_frame.h"),
    Control("sources", replaced(RECIPE, "/libmos_frame_gst.so\" ", "/libmos_frames_gst.so\" "), "no crate of the workspace is the library libmos_frames_gst.so"),
    Control("sources", replaced(RECIPE, 'EXTRA_CARGO_FLAGS = "--frozen --package ${BPN} --package mos-frame-gst', 'EXTRA_CARGO_FLAGS = "--frozen --package ${BPN}'), "EXTRA_CARGO_FLAGS builds"),
    Control("names", replaced(CONF, "    rauc:${LAYERDIR}", "    meta-rauc:${LAYERDIR}"), "collection meta-rauc"),
    Control("names", replaced(CONF, '"scarthgap wrynose"', '"scarthgap whinlatter wrynose"'), "LAYERSERIES_COMPAT"),
    Control("names", renamed("meta-mos/dynamic-layers/qcom/recipes-kernel/linux/linux-qcom_%.bbappend", "linux-quic_%.bbappend"), "linux-quic"),
    Control("version", replaced("Cargo.toml", '\nversion = "', '\nversion = "9'), "rename the recipe"),
    Control("documents", replaced("meta-mos/SECURITY.md", "report a vulnerability", "complain"), "SECURITY.md"),
    Control("documents", removed("meta-mos/COPYING"), "COPYING"),
    Control("documents", replaced("meta-mos/README.md", "`software-codecs`", "`codecs`"), "software-codecs"),
    Control("documents", replaced("meta-mos/README.md", "| `qcom-custom-bsp` |", "| `qcom-hwe` |"), "no word about the override qcom-custom-bsp"),
    Control("features", replaced("app/Cargo.toml", "\ndefault = []", "\ndefault = []\nnovel = []"), "no PACKAGECONFIG switches the cargo feature novel on"),
    Control("cross", replaced("cross.toml", "libgstrtspserver-1.0-dev:$CROSS_DEB_ARCH", ""), "does not install libgstrtspserver-1.0-dev"),
    Control("documents", replaced("meta-mos/README.md", "../README.md", "its pages"), "wants an address"),
    Control("unit_and_recipe", replaced(UNIT, "ExecStart=/usr/bin/mos ", "ExecStart=/usr/bin/mosd "), "starts /usr/bin/mosd"),
    Control("unit_and_recipe", replaced(UNIT, "User=mos", "User=moss"), "runs as moss"),
    Control("unit_and_recipe", replaced(RECIPE, "--system video;", "--system camera;"), "no group video"),
    Control("unit_and_recipe", replaced(RECIPE, 'SYSTEMD_SERVICE:${PN} = "', 'SYSTEMD_SERVICE:${PN} = "mosd.service '), "mosd.service, which is not there"),
    Control("unit_promises", replaced(UNIT, "ProtectSystem=strict", "ProtectSystem=full"), "ProtectSystem"),
    Control("unit_promises", replaced(UNIT, "DevicePolicy=closed", "DevicePolicy=auto"), "DevicePolicy"),
    Control("unit_promises", replaced(UNIT, "NoNewPrivileges=yes\n", "NoNewPrivileges=yes\nRestrictSUIDSGID=yes\n"), "RestrictSUIDSGID=yes forbids openat2"),
    Control("system_calls", replaced(UNIT, "SystemCallFilter=clock_adjtime", ""), "refuses clock_adjtime"),
    Control("system_calls", replaced(UNIT, "SystemCallFilter=@system-service", "SystemCallFilter=@basic-io @network-io @process"), "refuses openat2"),
    Control("firmware_settings", replaced(RECIPE, "--system mos-operators; ", ""), "gives a role to the group mos-operators"),
    Control("unit_promises", replaced(f"{MOS}/files/mos.tmpfiles", "d /data/mos ", "d /data/moss "), "/data/mos is writable but not made"),
    Control("firmware_settings", replaced(f"{MOS}/files/mos.toml", "segment_seconds", "segment_second"), "documents no storage.segment_second$"),
    Control("firmware_settings", replaced(f"{MOS}/files/mos.toml", '"/data/mos"', '"/data/archive"'), "may not write"),
    Control("firmware_settings", replaced(UNIT, " -/data/keys/mos", ""), "beside evidence.key_file"),
    Control("systemd", replaced(UNIT, "WatchdogSec=", "WatchdogSek="), "WatchdogSek"),
    Control("systemd", replaced(UNIT, "CapabilityBoundingSet=\n", "CapabilityBoundingSet=CAP_SYS_ADMIN CAP_SYS_RAWIO\nPrivateTmp=no\nSystemCallFilter=@raw-io\n"), "exposure"),
    Control("systemd", replaced("meta-mos/recipes-core/mos-data/files/data.mount.in", "Where=/data", "Where=/daten"), "data.mount"),
    Control("shell", replaced(f"{MOS}/files/run-ptest", 'kill -TERM "$daemon"', "kill -TERM $daemon; [[ 1 = 1 ]]"), "SC3010|SC2086"),
    Control("shell", replaced("meta-mos/recipes-core/mos-data/mos-data_*.bb", 'if [ "${MOS_DATA_GROW}" = "1" ]; then', 'if [ "${MOS_DATA_GROW}" = "1" ]'), "do_install"),
    Control("style", replaced(RECIPE, "CVE_PRODUCT", "CVE_PRODUKT"), "CVE_PRODUKT|CVE_PRODUCT"),
    Control("style", replaced(RECIPE, 'SECTION = "multimedia"\n', "SECTION = 'multimedia'   \n"), "scarthgap: .*mos_.*bb:"),
    Control("kas", replaced("meta-mos/kas/qemuarm64.yml", "machine:", "maschine:"), "maschine"),
    Control("kas", replaced("meta-mos/kas/base.yml", "    commit: ef022", "    commit: f022"), "oe-core is not pinned"),
    Control("kas", replaced("meta-mos/kas/rb3gen2-core-kit.yml", "machine: rb3gen2-core-kit", "machine: rb3gen2"), "machine rb3gen2$"),
    Control("kas", replaced("meta-mos/kas/base.yml", '"create-spdx vex"', '"create-spdx cve-check"'), "class cve-check"),
    Control("kas", renamed("meta-mos/kas/base.yml", "basis.yml"), "kas/base.yml, which is not there"),
    Control("partitions", removed("meta-mos/files/wic/mos-qemu.wks"), "no files/wic/mos-qemu.wks"),
    Control("partitions", replaced("meta-mos/files/wic/mos-imx8mp.wks.in", "--part-name data", "--part-name date"), "no partition /data"),
    Control("partitions", replaced("meta-mos/files/wic/mos-qemu.wks", "--no-fstab-update ", ""), "fstab"),
    Control("cross", replaced("cross.toml", "pre-build = [", "prebuild = ["), "prebuild"),
    Control("cross", replaced("cross.toml", "libgstreamer1.0-dev:$CROSS_DEB_ARCH", "libgstreamer1.0-dev"), "does not install libgstreamer1.0-dev"),
    Control("cross", removed("cross.toml"), "not there"),
    Control("binding", replaced(BINDING, "        description: Id of the lens, unique on the board.\n", ""), "mos,name"),
    Control("binding", replaced(BINDING, "maintainers:\n  - MOS maintainers", "maintainers:\n  - MOS maintainers, see there\n  - "), "maintainers:0"),
    Control("binding", replaced(BINDING, "mos,link = <2>;", "mos,link = <4>;"), "4 is greater than the maximum of 3"),
    Control("trees", replaced(GMSL, "mos,link = <2>;", "mos,link = <4>;"), "4 is greater than the maximum of 3"),
    Control("trees", replaced(GMSL, "mos,link = <1>;", "mos,lnk = <1>;"), "'mos,lnk' was unexpected|'mos,lnk' does not match"),
    Control("trees", replaced(MIPI, 'mos,name = "cabin"', 'mos,name = "Cabin"'), "Cabin"),
    Control("trees", replaced(MIPI, "&isi_0 {", "&isi_9 {"), "FDT_ERR_NOTFOUND"),
    Control("trees", removed("device-tree/fixtures/pc.dts"), "no fixture pc"),
    Control("overlay_recipe", replaced(OVERLAYS, '"imx8mp-evk-mos-two-mipi"', '"imx8mp-evk-mos-two"'), "no overlay imx8mp-evk-mos-two$"),
    Control("overlay_recipe", replaced(OVERLAYS, "MOS_OVERLAYS:qcm6490", "MOS_OVERLAYS:qcom-custom-bsp"), "built without overlays"),
    Control("overlay_recipe", replaced(OVERLAYS, "^(mx8mp-generic-bsp|qcm6490)$", "^mx8mp-generic-bsp$"), "qcs6490-rb3gen2-mos.dtso is deployed on no machine"),
    Control("version", renamed(OVERLAYS, "mos-device-tree_9.9.9.bb"), "mos-device-tree_9.9.9.bb: the crate is"),
    Control("licence_sums", digit(OVERLAYS, "LICENSE-APACHE;md5="), "LICENSE-APACHE is"),
]


def copy(root: Path, folder: Path) -> Layer:
    """A copy of all that the checks read."""
    shutil.copytree(root / "meta-mos", folder / "meta-mos", ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE:
        if (root / name).is_dir():
            shutil.copytree(root / name, folder / name)
        elif (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, folder / name)
    return Layer(folder)


def run(root: Path, checks: dict[str, Callable]) -> list[str]:
    """The controls whose fault was not found, and the checks that have none."""
    problems = [f"{name} has no negative control" for name in checks if name not in {c.check for c in CONTROLS}]
    for control in CONTROLS:
        with tempfile.TemporaryDirectory() as folder:
            layer = copy(root, Path(folder))
            control.fault(Path(folder))
            found = checks[control.check](layer, Parsed(layer))
            if not any(re.search(control.reported, line) for line in found):
                said = "; ".join(found[:3]) or "nothing"
                problems.append(f"{control.check} does not find that {control.name}; it said: {said}")
    return problems
