FILESEXTRAPATHS:prepend:mx8mp-generic-bsp := "${THISDIR}/files:"

# The keyring is the integrator's: RAUC_KEYRING_FILE names it. No key or certificate is kept in this layer.
do_install:append:mx8mp-generic-bsp() {
    find ${D} -name system.conf -exec sed -i 's,@COMPATIBLE@,mos-${MACHINE},' {} +
}
