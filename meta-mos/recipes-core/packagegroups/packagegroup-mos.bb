SUMMARY = "MOS and what a recording box needs beside it"
DESCRIPTION = "The recorder, its data partition, and what people at a bench want to look at cameras."
SECTION = "multimedia"

# Before the inherit: what it pulls in differs from board to board.
PACKAGE_ARCH = "${MACHINE_ARCH}"

inherit packagegroup

RDEPENDS:${PN} = " \
    ca-certificates \
    mos \
    mos-data \
    tzdata \
"

# What names the lenses of a reference board.
RRECOMMENDS:${PN}:append:mx8mp-generic-bsp = " mos-device-tree"
RRECOMMENDS:${PN}:append:qcm6490 = " mos-device-tree"

# For people at the bench; none is needed to record.
RRECOMMENDS:${PN} = " \
    curl \
    gstreamer1.0 \
    i2c-tools \
    mos-gstreamer \
    ${@bb.utils.contains('BBFILE_COLLECTIONS', 'openembedded-layer', 'media-ctl v4l-utils', '', d)} \
"
