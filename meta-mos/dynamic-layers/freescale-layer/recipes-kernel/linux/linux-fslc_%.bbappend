FILESEXTRAPATHS:prepend := "${MOS_LAYERDIR}/files/kernel:"

SRC_URI:append:mx8mp-generic-bsp = " file://mos.cfg"
