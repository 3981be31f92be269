SUMMARY = "Device-tree overlays that name a board's lenses for MOS"
DESCRIPTION = "Compiles the overlays of the reference boards and deploys them. The boot loader applies one to a base tree that has symbols; \
MOS then finds the lenses in the live tree."
SECTION = "bsp"
LICENSE = "Apache-2.0 | MIT"
LIC_FILES_CHKSUM = " \
    file://LICENSE-APACHE;md5=22a53954e4e0ec258dfce4391e905dac \
    file://LICENSE-MIT;md5=38e60e1f0e9de30771cf0b49bb265fe4 \
"

DEPENDS += "dtc-native"

require recipes-multimedia/mos/mos-source.inc

inherit deploy

PACKAGE_ARCH = "${MACHINE_ARCH}"
COMPATIBLE_MACHINE = "^(mx8mp-generic-bsp|qcm6490)$"

# Of device-tree/overlays, without the suffix.
MOS_OVERLAYS ??= ""
MOS_OVERLAYS:mx8mp-generic-bsp ??= "imx8mp-evk-mos-two-mipi"
MOS_OVERLAYS:qcm6490 ??= "qcs6490-rb3gen2-mos"

# An overlay has only one of the two ports that make the cell counts of a graph necessary.
do_compile() {
    set -- ${MOS_OVERLAYS}
    for name; do
        dtc -@ -W no-graph_child_address -I dts -O dtb -o "${B}/$name.dtbo" "${S}/device-tree/overlays/$name.dtso"
    done
}

do_install() {
    install -d "${D}/boot/overlays"
    set -- ${MOS_OVERLAYS}
    for name; do
        install -m 0644 "${B}/$name.dtbo" "${D}/boot/overlays/$name.dtbo"
    done
}

do_deploy() {
    install -d "${DEPLOYDIR}/overlays"
    set -- ${MOS_OVERLAYS}
    for name; do
        install -m 0644 "${B}/$name.dtbo" "${DEPLOYDIR}/overlays/$name.dtbo"
    done
}

addtask deploy after do_compile before do_build

FILES:${PN} += "/boot/overlays"
