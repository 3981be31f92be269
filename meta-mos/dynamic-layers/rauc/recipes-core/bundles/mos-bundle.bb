SUMMARY = "Signed update of a recording box"
DESCRIPTION = "A RAUC bundle with the root file system of mos-image, for the slot that does not run."
SECTION = "images"
LICENSE = "MIT"

inherit bundle

# Key and certificate come from RAUC_KEY_FILE and RAUC_CERT_FILE of the build's configuration; none is kept in this layer.
RAUC_BUNDLE_COMPATIBLE = "mos-${MACHINE}"
RAUC_BUNDLE_DESCRIPTION = "MOS recording box"
RAUC_BUNDLE_FORMAT = "verity"
RAUC_BUNDLE_SLOTS = "rootfs"

RAUC_SLOT_rootfs = "mos-image"
RAUC_SLOT_rootfs[fstype] = "ext4"
