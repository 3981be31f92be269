# shellcheck shell=bash
# The Debian 13 chroot that is the home of QEMU and of the compilers for modules, and the x86 guest's read-only root.

home() {
    make_chroot "$root" trixie \
        --include=ca-certificates,systemd,udev,kmod,iproute2,e2fsprogs,util-linux,xz-utils,busybox-static,v4l-utils \
        --include=dropbear-bin,openssh-sftp-server,device-tree-compiler,qemu-system-x86,qemu-system-arm,qemu-user \
        --include=libcamera-ipa,libcamera-tools,gstreamer1.0-libcamera,libgstrtspserver-1.0-0,gstreamer1.0-tools \
        --include=gstreamer1.0-plugins-base,gstreamer1.0-plugins-good,gstreamer1.0-plugins-bad,gstreamer1.0-plugins-ugly \
        --include=v4l2loopback-utils,make,gcc-14,gcc-14-aarch64-linux-gnu,libelf1t64
}

# A key for the host, a host key for the guests; both are of no use outside these rigs.
keys() {
    [ -e "$cache/key" ] || ssh-keygen -q -t ed25519 -N '' -C mos-hil -f "$cache/key"
    if [ ! -e "$cache/host_key" ]; then
        chroot "$root" sh -c 'rm -f /tmp/host_key; dropbearkey -t ed25519 -f /tmp/host_key > /dev/null'
        mv "$root/tmp/host_key" "$cache/host_key"
    fi
}

# What every guest's root gets, whatever its architecture: $1 is the root.
guest() {
    install -d -m 700 "$1/root/.ssh"
    install -m 600 "$cache/key.pub" "$1/root/.ssh/authorized_keys"
    install -D -m 600 "$cache/host_key" "$1/etc/dropbear/dropbear_ed25519_host_key"
    mkdir -p "$1/rig" "$1/data" "$1/etc/mos"
    # What Debian's dropbear asks a shell to be listed in.
    grep -qsx /bin/sh "$1/etc/shells" || echo /bin/sh >> "$1/etc/shells"
    install -D -m 644 hil/guest/virtual.yaml "$1/usr/share/libcamera/pipeline/virtual/virtual.yaml"
}

has_program() {
    case $1 in
    qemu-x86) (chosen amd64) > /dev/null 2>&1 ;;
    *) (chosen arm64) > /dev/null 2>&1 ;;
    esac
}

# The program under test for an architecture: $MOS, else what the repository's own targets have built.
chosen() {
    local found=
    case $1 in
    amd64) set -- target/libcamera/target/debug/mos target/release/mos target/debug/mos ;;
    arm64) set -- target/cross/target/mos-aarch64 ;;
    esac
    for found in ${MOS:+"$MOS"} "$@"; do
        [ ! -f "$found" ] || break
    done
    [ -f "$found" ] || { echo "error: no mos to test: run make libcamera, make build or (arm64) make cross-aarch64, or set MOS=PROGRAM" >&2; exit 1; }
    echo "$found"
}

program() {
    local found
    case $1 in
    qemu-x86)
        found=$(chosen amd64)
        install -m 755 -D "$found" "$root/usr/bin/mos"
        chroot "$root" strip /usr/bin/mos
        install -m 755 hil/guest/init hil/guest/board "$root/rig/"
        install -m 644 hil/guest/mos-rig.service "$root/etc/systemd/system/mos-rig.service"
        ;;
    *)
        found=$(chosen arm64)
        # It comes as a second archive of the initramfs, and so do the rig's own scripts.
        install -m 755 -D "$found" "$cache/program/rig/mos"
        install -m 755 hil/guest/init hil/guest/board "$cache/program/rig/"
        (cd "$cache/program" && find rig | "$root/bin/busybox" cpio -o -H newc 2> /dev/null | gzip -1) > "$cache/program.gz"
        cat "$cache/initramfs-arm64-base.gz" "$cache/program.gz" > "$cache/initramfs-arm64.gz"
        rm -rf "$cache/program" "$cache/program.gz"
        ;;
    esac
    echo "program of $1: $found"
}
