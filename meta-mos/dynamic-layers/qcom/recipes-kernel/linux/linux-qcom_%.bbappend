FILESEXTRAPATHS:prepend := "${MOS_LAYERDIR}/files/kernel:"

SRC_URI:append:qcm6490 = " file://mos.cfg"
