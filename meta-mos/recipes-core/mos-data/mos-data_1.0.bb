SUMMARY = "Mounts the data partition of a recording box at /data"
DESCRIPTION = "A mount unit for the partition that holds footage, settings of the vehicle and caches, and what lets it grow at \
the first boot."
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/COPYING.MIT;md5=3da9cfbcb788c80a0384361b4de20420"

SRC_URI = " \
    file://data.mount.in \
    file://50-data.conf \
"

S = "${UNPACKDIR}"

inherit systemd features_check

REQUIRED_DISTRO_FEATURES = "systemd"

PACKAGE_ARCH = "${MACHINE_ARCH}"

# The partition that wic made, which systemd-repart grows. Qualcomm's boards are flashed with a partition table of their own,
# in which the largest partition is called userdata.
MOS_DATA_DEVICE ??= "/dev/disk/by-partlabel/data"
MOS_DATA_DEVICE:qcom ??= "/dev/disk/by-partlabel/userdata"
MOS_DATA_GROW ??= "1"
MOS_DATA_GROW:qcom ??= "0"

do_compile[noexec] = "1"

do_install() {
    install -d ${D}/data ${D}${systemd_system_unitdir}
    sed -e 's,@DEVICE@,${MOS_DATA_DEVICE},g' ${UNPACKDIR}/data.mount.in > ${D}${systemd_system_unitdir}/data.mount
    chmod 0644 ${D}${systemd_system_unitdir}/data.mount
    if [ "${MOS_DATA_GROW}" = "1" ]; then
        install -D -m 0644 ${UNPACKDIR}/50-data.conf ${D}${nonarch_libdir}/repart.d/50-data.conf
    fi
}

SYSTEMD_SERVICE:${PN} = "data.mount"

FILES:${PN} += "/data ${nonarch_libdir}/repart.d/50-data.conf"

# The file system is looked through before it is mounted.
RDEPENDS:${PN} = "e2fsprogs-e2fsck"
