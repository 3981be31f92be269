# shellcheck shell=bash
# The arm64 boards: a card with a root made without running any of it, one image for both. The second partition is the data's.

card=${cache:?}/card-arm64.img

arm64() {
    if [ ! -e "$card" ]; then
        local guest=$cache/arm64
        if [ ! -e "$guest.made" ]; then
            rm -rf "$guest"
            mmdebstrap --variant=extract --architectures=arm64 --include=base-files,base-passwd,libc-bin,bash,dash,mawk,grep,sed,findutils,gzip,coreutils \
                --include=udev,kmod,iproute2,e2fsprogs,util-linux,mount,v4l-utils,v4l2loopback-utils,dropbear-bin,openssh-sftp-server,busybox-static \
                --include=libgstrtspserver-1.0-0,gstreamer1.0-tools,gstreamer1.0-plugins-base,gstreamer1.0-plugins-good \
                --include=gstreamer1.0-plugins-bad,gstreamer1.0-plugins-ugly \
                --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
                trixie "$guest"
            touch "$guest.made"
        fi
        rm -rf "$guest"/usr/share/{doc,locale,man,icons,fonts,iso-codes,xml} "$guest"/var/lib/apt/lists "$guest"/var/cache/apt
        kernel arm64 "$guest"
        unconfigured "$guest"
        guest "$guest"
        initramfs "$cache/initramfs-arm64-base.gz" "$guest/usr/bin/busybox" "$guest" hil/guest/initramfs \
            virtio_pci virtio_mmio virtio_blk fixed nvmem-imx-ocotp sdhci-esdhc-imx mmc_block crc32c_generic crc32c-generic ext4 overlay
        write_card "$guest"
        rm -rf "$guest" "$guest.made"
    fi
    tree "$1"
}

# What the packages' scripts would have done, had they run.
unconfigured() {
    local guest=$1
    ln -sf dash "$guest/usr/bin/sh"
    ln -sf mawk "$guest/usr/bin/awk"
    for name in passwd group; do cp "$guest/usr/share/base-passwd/$name.master" "$guest/etc/$name"; done
    sed 's/^\([^:]*\):.*/\1:*:20000:0:99999:7:::/; s/^root:\*/root:*/' "$guest/etc/passwd" > "$guest/etc/shadow"
    printf 'root:x:0:0:root:/root:/bin/sh\n' | cat - <(grep -v '^root:' "$guest/etc/passwd") > "$guest/etc/passwd.new"
    mv "$guest/etc/passwd.new" "$guest/etc/passwd"
    cp "$root/usr/bin/qemu-aarch64" "$guest/qemu-aarch64"
    chroot "$guest" /qemu-aarch64 /usr/sbin/ldconfig
    # GStreamer's registry, which the emulated board would scan for a minute.
    # shellcheck disable=SC2016 # expanded inside
    unshare --mount sh -euc 'for at in proc sys dev; do mount --rbind /$at "$1/$at"; done
        exec chroot "$1" /qemu-aarch64 -E HOME=/root -E GST_REGISTRY_FORK=no /usr/bin/gst-inspect-1.0' sh "$guest" > /dev/null
    rm "$guest/qemu-aarch64"
}

# A card of 2 GiB (QEMU wants powers of two), sparse: 1 MiB, the root, the data partition.
write_card() {
    local megabytes=1536
    rm -f "$card.new"
    truncate -s 2G "$card.new"
    # The partition table: type, first sector and length of both (this machine may have no fdisk).
    python3 -c '
import struct, sys
root = int(sys.argv[1]) * 2048
entry = lambda first, sectors: struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), first, sectors)
table = entry(2048, root) + entry(2048 + root, (2 << 30) // 512 - 2048 - root)
sys.stdout.buffer.write(bytes(446) + table + bytes(32) + b"\x55\xaa")' "$megabytes" | dd of="$card.new" conv=notrunc status=none
    /sbin/mke2fs -q -t ext4 -d "$1" -E offset=1048576,root_owner=0:0 -m 0 "$card.new" "${megabytes}M"
    mv "$card.new" "$card"
}

# The board's device tree with our overlay. The RB3 look-alike is QEMU's own board with the RB3's name and the nodes of
# device-tree/fixtures that our overlay touches: it has no Qualcomm hardware.
tree() {
    local home=$root/tmp/trees
    rm -rf "$home"
    mkdir -p "$home"
    cp device-tree/overlays/*.dtso device-tree/fixtures/*.dtsi "$home/"
    case $1 in
    qemu-imx8mp)
        cp "$cache/dtb-arm64/imx8mp-evk.dtb" "$home/base.dtb"
        overlay=imx8mp-evk-mos-two-mipi
        ;;
    qemu-qcs6490)
        "hil/bin/qemu-system-aarch64" -M virt,gic-version=3,dumpdtb="$home/virt.dtb" -cpu cortex-a53 -smp 1 -m 1024M -nodefaults -nographic
        chroot "$root" dtc -q -I dtb -O dts -o /tmp/trees/virt.dts /tmp/trees/virt.dtb
        { cat "$home/virt.dts"; sed '/SPDX/d' "$home/qcs6490-rb3gen2.dtsi"; } > "$home/base.dts"
        chroot "$root" dtc -q -@ -I dts -O dtb -o /tmp/trees/base.dtb /tmp/trees/base.dts
        overlay=qcs6490-rb3gen2-mos
        ;;
    esac
    chroot "$root" sh -euc 'cd /tmp/trees; dtc -q -@ -O dtb -o o.dtbo "$1.dtso"; fdtoverlay -i base.dtb -o full.dtb o.dtbo' sh "$overlay"
    mv "$home/full.dtb" "$cache/$1.dtb"
    rm -rf "$home"
}
