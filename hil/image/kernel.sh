# shellcheck shell=bash
# Debian's kernels, and the modules that it does not build: vimc, v4l2loopback.

# kernel ARCH INTO: unpacks it (installing it would want a boot loader's surroundings) and prints its version.
kernel() {
    local arch=$1 into=$2
    if [ ! -e "$cache/vmlinuz-$arch" ] || [ ! -d "$into/usr/lib/modules" ]; then
        chroot "$root" sh -euc '
            dpkg --add-architecture arm64
            apt-get update -qq
            kernel=$(apt-cache depends "linux-image-$1:$1" | sed -n "s/^ *Depends: \(linux-image-[0-9][^:]*\).*/\1/p" | tail -n 1)
            rm -rf /tmp/kernel && mkdir /tmp/kernel && cd /tmp/kernel
            apt-get -o APT::Sandbox::User=root download -qq "$kernel:$1"
            dpkg-deb -x ./*.deb .' sh "$arch" >&2
        mkdir -p "$into/usr/lib/modules" "$cache/dtb-$arch"
        cp -a "$root"/tmp/kernel/usr/lib/modules/* "$into/usr/lib/modules/"
        cp "$root"/tmp/kernel/usr/lib/linux-image-*/freescale/imx8mp-evk.dtb "$cache/dtb-$arch/" 2> /dev/null || true
        modules "$arch" "$into"
        mv "$root"/tmp/kernel/boot/vmlinuz-* "$cache/vmlinuz-$arch"
        rm -rf "$root/tmp/kernel"
    fi
}

# The kernel whose modules lie in a root; headers of others leave a folder without modules beside it.
version_in() {
    (cd "$1/usr/lib/modules" && dirname ./*/modules.order | sed 's,^\./,,')
}

# modules ARCH ROOT: builds vimc and v4l2loopback for the kernel in ROOT, and lists all modules anew.
modules() {
    local version
    version=$(version_in "$2")
    chroot "$root" sh -euc '
        arch=$1 version=$2 common=${2%-"$1"}-common
        rm -rf /tmp/modules && mkdir /tmp/modules && cd /tmp/modules
        # The headers of another architecture cannot be installed, but unpacked; their tools are those of this one.
        apt-get -o APT::Sandbox::User=root download -qq "linux-headers-$version:$arch" "linux-headers-$common" "linux-kbuild-${version%-"$1"}" v4l2loopback-dkms
        for package in ./*.deb; do dpkg-deb -x "$package" /; done
        [ -e /usr/src/vimc/Makefile ] || {
            apt-get -o APT::Sandbox::User=root download -qq linux-source-6.12
            dpkg-deb --fsys-tarfile linux-source-*.deb | tar -x --wildcards "*.tar.xz" -C /tmp/modules
            tar -xJf usr/src/linux-source-6.12.tar.xz -C /tmp/modules --wildcards "*/drivers/media/test-drivers/vimc/*"
            mv linux-source-*/drivers/media/test-drivers/vimc /usr/src/vimc
        }
        cross=
        if [ "$arch" = arm64 ]; then cross="ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- CC=aarch64-linux-gnu-gcc-14"; else cross="CC=gcc-14"; fi
        for driver in /usr/src/vimc /usr/src/v4l2loopback-*; do
            cp -r "$driver" "/tmp/modules/${driver##*/}"
            make -s -j2 -C "/usr/src/linux-headers-$version" M="/tmp/modules/${driver##*/}" $cross CONFIG_VIDEO_VIMC=m CONFIG_DEBUG_INFO_BTF_MODULES= modules
            mkdir -p "/tmp/modules/made"
            mv "/tmp/modules/${driver##*/}"/*.ko /tmp/modules/made/
        done' sh "$1" "$version" >&2
    mkdir -p "$2/usr/lib/modules/$version/updates"
    mv "$root"/tmp/modules/made/*.ko "$2/usr/lib/modules/$version/updates/"
    rm -rf "$root/tmp/modules"
    with_guest "$2" depmod -b /mnt/guest "$version"
}

# with_guest ROOT COMMAND...: in the home chroot, with ROOT at /mnt/guest.
with_guest() {
    mkdir -p "$root/mnt/guest"
    # shellcheck disable=SC2016 # expanded inside
    unshare --mount sh -euc 'mount --bind "$2" "$1/mnt/guest"; home=$1; shift 2; exec chroot "$home" "$@"' sh "$root" "$@"
}

# initramfs OUT BUSYBOX ROOT INIT MODULE...: busybox, an init and the modules with all that they need, in their order.
initramfs() {
    local out=$1 busybox=$2 from=$3 init=$4 tree=$cache/initramfs number=100 version file module
    shift 4
    version=$(version_in "$from")
    rm -rf "$tree"
    mkdir -p "$tree"/{bin,m,proc,dev,ro,rw,root}
    cp "$busybox" "$tree/bin/busybox"
    install -m 755 "$init" "$tree/init"
    # A module that this kernel has built in, or not at all, is none of its files.
    for module; do
        with_guest "$from" modprobe -d /mnt/guest -S "$version" --show-depends "$module" 2> /dev/null || true
    done | sed -n 's/^insmod *\([^ ]*\).*/\1/p' | awk '!seen[$0]++' > "$tree.list"
    [ -s "$tree.list" ] || { echo "error: no module of $version for the initramfs" >&2; exit 1; }
    while read -r file; do
        number=$((number + 1))
        file=$from${file#/mnt/guest}
        case $file in
        *.xz) xz -dc "$file" > "$tree/m/$number-$(basename "$file" .xz)" ;;
        *) cp "$file" "$tree/m/$number-$(basename "$file")" ;;
        esac
    done < "$tree.list"
    (cd "$tree" && find . | "$root/bin/busybox" cpio -o -H newc 2> /dev/null | gzip -9) > "$out"
    rm -rf "$tree" "$tree.list"
}
