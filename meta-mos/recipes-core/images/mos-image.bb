SUMMARY = "A camera recorder with a read-only root and a data partition"
DESCRIPTION = "Boots into MOS. The root file system is read-only; footage, settings of the vehicle and caches lie on /data."
SECTION = "images"
LICENSE = "MIT"

inherit core-image image-buildinfo

IMAGE_FEATURES += "read-only-rootfs ssh-server-openssh"

# Units, sandbox and watchdog are systemd's.
REQUIRED_DISTRO_FEATURES = "systemd"
inherit features_check

CORE_IMAGE_EXTRA_INSTALL += "packagegroup-mos"

# The archive's partition is made with the image and grows to the end of the medium at the first boot (mos-data).
# scarthgap looks for it in a folder that wrynose refuses in a layer.
WKS_SEARCH_PATH:append = ":${MOS_LAYERDIR}/files/wic"
WKS_FILE:qemuarm64 = "mos-qemu.wks"
WKS_FILE:mx8mp-generic-bsp = "mos-imx8mp.wks.in"
IMAGE_FSTYPES:append:qemuarm64 = " wic"
IMAGE_FSTYPES:append:mx8mp-generic-bsp = " ext4"

# Where runqemu finds the root file system of mos-qemu.wks.
QB_DEFAULT_FSTYPE:qemuarm64 = "wic"
QB_KERNEL_ROOT:qemuarm64 = "/dev/vda1"

IMAGE_BUILDINFO_VARS:append = " MACHINE"
