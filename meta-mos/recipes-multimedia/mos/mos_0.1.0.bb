SUMMARY = "Camera recorder for vehicles and edge boxes"
SUMMARY:${PN}-gstreamer = "GStreamer source of MOS' live frames: mosframesrc"
DESCRIPTION = "MOS records any mix of cameras so that a power cut costs at most a second, answers for every second that it \
should hold, cuts exact clips and pictures, and uploads them over bad links."
SECTION = "multimedia"

# The project itself, then what its crates add; they are linked statically.
LICENSE = "(Apache-2.0 | MIT) & Apache-2.0 & MIT & BSD-3-Clause & ISC & Unicode-3.0 & Zlib"
LIC_FILES_CHKSUM = " \
    file://LICENSE-APACHE;md5=22a53954e4e0ec258dfce4391e905dac \
    file://LICENSE-MIT;md5=38e60e1f0e9de30771cf0b49bb265fe4 \
"

DEPENDS += "gstreamer1.0 gstreamer1.0-plugins-base"

require ${BPN}-source.inc
require ${BPN}-crates.inc

SRC_URI += " \
    file://mos.service \
    file://mos.socket \
    file://mos.rules \
    file://mos.tmpfiles \
    file://mos.toml \
    file://run-ptest \
"

# `cargo` of oe-core. scarthgap's is older than MOS asks for (1.94): see README.md for `cargo_bin` of meta-rust-bin.
MOS_CARGO_CLASS ??= "cargo"

inherit ${MOS_CARGO_CLASS} cargo-update-recipe-crates pkgconfig systemd useradd ptest

# Each entry is a way to a camera or a codec. None but `demo`, `whep` and `libcamera-survey` changes the program: the elements are looked up at run time,
# so an entry means the packages that bring them. bitbake wants every package that is named to exist, a recommended one too,
# so an entry is on only where its layer is. `software-codecs` needs LICENSE_FLAGS_ACCEPTED to name `commercial`.
PACKAGECONFIG ??= "v4l2 jpeg${@bb.utils.contains('BBFILE_COLLECTIONS', 'multimedia-layer', ' srt', '', d)}"
PACKAGECONFIG:append:mx8mp-nxp-bsp = " imx-bsp"
PACKAGECONFIG:append:mx8mp-mainline-bsp = " v4l2codecs${@bb.utils.contains('BBFILE_COLLECTIONS', 'multimedia-layer', ' libcamera', '', d)}"
PACKAGECONFIG:append:qcm6490 = "${@bb.utils.contains('LAYERSERIES_CORENAMES', 'scarthgap', '', ' imsdk', d)}"
PACKAGECONFIG:append:qcom-custom-bsp = "${@bb.utils.contains('BBFILE_COLLECTIONS', 'qti-qim-product-sdk', ' qim', '', d)}"

PACKAGECONFIG[demo] = "--features demo,,gstreamer1.0-rtsp-server"
PACKAGECONFIG[v4l2] = ",,,gstreamer1.0-plugins-good-video4linux2"
PACKAGECONFIG[jpeg] = ",,,gstreamer1.0-plugins-good-jpeg"
# SRT's element exists where gstreamer1.0-plugins-bad is built with its own `srt`: see README.md.
PACKAGECONFIG[srt] = ",,,,gstreamer1.0-plugins-bad-srt"
# Cameras over WebRTC. The elements exist where gstreamer1.0-plugins-bad and libnice are built for them: see README.md.
PACKAGECONFIG[whep] = "--features whep,,gstreamer1.0-plugins-bad,,gstreamer1.0-plugins-bad-dtls gstreamer1.0-plugins-bad-srtp gstreamer1.0-plugins-bad-webrtc libnice"
PACKAGECONFIG[libcamera] = ",,,,libcamera-gst"
# Asks libcamera for models, modes and controls, too; streaming needs it not. Bindings are made by clang from libcamera's headers.
PACKAGECONFIG[libcamera-survey] = "--features libcamera,,libcamera clang-native,,libcamera-gst"
export BINDGEN_EXTRA_CLANG_ARGS = "--target=${TARGET_SYS} --sysroot=${STAGING_DIR_TARGET}"
PACKAGECONFIG[v4l2codecs] = ",,,,gstreamer1.0-plugins-bad-v4l2codecs"
PACKAGECONFIG[imx-bsp] = ",,,,imx-gst1.0-plugin isp-imx kernel-module-isp-vvcam"
PACKAGECONFIG[imsdk] = ",,,,gst-plugins-imsdk-base gst-plugins-imsdk-oss"
# Cameras and JPEGs of the camera service; its recipe builds them with its own `camera` only.
PACKAGECONFIG[imsdk-camera] = ",,,,gst-plugins-imsdk-prop"
PACKAGECONFIG[qim] = ",,,,packagegroup-qcom-gst"
# The scene of `test:`, with sound, and pictures where no hardware decodes.
PACKAGECONFIG[software-codecs] = ",,,,gstreamer1.0-plugins-ugly-x264 gstreamer1.0-libav gstreamer1.0-plugins-base-audiotestsrc"

# For those who read the frame bus: the source of GStreamer pipelines; the C header (in mos-dev), the contract and readers to
# start from (in mos-doc).
PACKAGE_BEFORE_PN = "${PN}-gstreamer"
FILES:${PN}-gstreamer += "${libdir}/gstreamer-1.0/libmos_frame_gst.so"
FILES:${PN} += "${nonarch_libdir}/tmpfiles.d/mos.conf ${nonarch_base_libdir}/udev/rules.d/70-mos.rules"
CONFFILES:${PN} = "${sysconfdir}/mos/mos.toml"

# Parsers, files and converters of the paths that every platform shares. `make yocto-check` compares them with the elements that
# the program names.
RDEPENDS:${PN} += " \
    gstreamer1.0-plugins-bad-mpegtsdemux \
    gstreamer1.0-plugins-bad-videoparsersbad \
    gstreamer1.0-plugins-base-app \
    gstreamer1.0-plugins-base-audioconvert \
    gstreamer1.0-plugins-base-videoconvertscale \
    gstreamer1.0-plugins-good-audioparsers \
    gstreamer1.0-plugins-good-isomp4 \
    gstreamer1.0-plugins-good-rtp \
    gstreamer1.0-plugins-good-rtpmanager \
    gstreamer1.0-plugins-good-rtsp \
    gstreamer1.0-plugins-good-udp \
    gstreamer1.0-plugins-good-videofilter \
"
RDEPENDS:${PN}-ptest += "gstreamer1.0"
RRECOMMENDS:${PN} += "kernel-module-uvcvideo"

# The workspace also holds tests and benchmarks: only the program and the plugin are built and installed. wrynose's class passes
# PACKAGECONFIG_CONFARGS itself, scarthgap's does not; features given twice do no harm.
CARGO_BUILD_FLAGS:append = " --package ${BPN} --package mos-frame-gst ${PACKAGECONFIG_CONFARGS}"
EXTRA_CARGO_FLAGS = "--frozen --package ${BPN} --package mos-frame-gst ${PACKAGECONFIG_CONFARGS}"
# Where `cargo_bin`, else `cargo`, puts what it made. (A variable that is not set, written in braces, would leave all of it as it is.)
MOS_BUILT = "${@d.getVar('CARGO_BINDIR') or os.path.join(d.getVar('B'), 'target', d.getVar('CARGO_TARGET_SUBDIR'))}"

# The list is that of the workspace; the fuzz targets have a Cargo.lock of their own, which is not built here.
CARGO_LOCK_SRC_DIR = "${WORKDIR}/lock"
do_update_crates:prepend() {
    install -D -m 0644 ${S}/Cargo.lock ${CARGO_LOCK_SRC_DIR}/Cargo.lock
}

do_configure:append() {
    # The class of meta-rust-bin does not point cargo at the crates that were fetched.
    if [ "${MOS_CARGO_CLASS}" = "cargo_bin" ]; then
        printf '[source.crates-io]\nreplace-with = "fetched"\n[source.fetched]\ndirectory = "%s"\n' \
            "${UNPACKDIR}/cargo_home/bitbake" > "${CARGO_HOME}/config.toml"
    fi
}

do_install:append() {
    # Some classes install every library that Cargo leaves, where no plugin is looked for.
    rm -rf "${D}${libdir}"
    install -D -m 0755 "${MOS_BUILT}/libmos_frame_gst.so" "${D}${libdir}/gstreamer-1.0/libmos_frame_gst.so"
    install -D -m 0644 "${S}/hal/frame/include/mos_frame.h" "${D}${includedir}/mos_frame.h"
    install -d "${D}${docdir}/${BPN}/examples"
    install -m 0644 "${S}/hal/frame/PROTOCOL.md" "${D}${docdir}/${BPN}/"
    install -m 0644 "${S}/hal/frame/examples/subscriber.c" "${S}/hal/frame/examples/subscriber.py" "${D}${docdir}/${BPN}/examples/"
    install -D -m 0640 ${UNPACKDIR}/mos.toml ${D}${sysconfdir}/mos/mos.toml
    install -D -m 0644 ${UNPACKDIR}/mos.tmpfiles ${D}${nonarch_libdir}/tmpfiles.d/mos.conf
}

do_install:append:class-target() {
    install -D -m 0644 ${UNPACKDIR}/mos.service ${D}${systemd_system_unitdir}/mos.service
    install -D -m 0644 ${UNPACKDIR}/mos.rules ${D}${nonarch_base_libdir}/udev/rules.d/70-mos.rules
    install -D -m 0644 ${UNPACKDIR}/mos.socket ${D}${systemd_system_unitdir}/mos.socket
    chown root:mos ${D}${sysconfdir}/mos/mos.toml
}

SYSTEMD_SERVICE:${PN} = "mos.socket mos.service"

# Whoever is in the group `mos` reaches the socket and is a viewer; who is in `mos-operators` too is an operator (mos.toml). The
# others are for cameras, codecs, links and pins.
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system mos; --system mos-operators; --system video; --system render; --system i2c; --system gpio"
USERADD_PARAM:${PN} = "--system --no-create-home --home-dir /data/mos --shell /sbin/nologin \
    --gid mos --groups video,render,i2c,gpio mos"

CVE_PRODUCT = "mos"
