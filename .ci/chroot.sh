# shellcheck shell=bash
# Debian chroots for what Debian 12 has not: sourced by the scripts beside it. All of it lies under target/ and is kept between
# runs; the machine's packages stay as they are.

# make_chroot ROOT SUITE MMDEBSTRAP_OPTION...: makes it once, from Debian's own servers, with updates and security.
make_chroot() {
    local root=$1 suite=$2
    shift 2
    if [ "$(id -u)" != 0 ]; then echo "error: ${0##*/} makes a chroot and so must be root" >&2; exit 1; fi
    if [ ! -e "$root.made" ]; then
        rm -rf "$root"
        mkdir -p "$(dirname "$root")"
        mmdebstrap --variant=apt "$@" "$suite" "$root"
        touch "$root.made"
    fi
    # The names of servers, and their certificates if this machine trusts more than Debian does.
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
}

# in_chroot ROOT SOURCE CARGO OUT COMMAND...: runs it with SOURCE read-only at /src, CARGO at /cargo, OUT at /out. A toolchain at
# $TOOLCHAIN, if set, is at /rust. The mounts end with it.
in_chroot() {
    mkdir -p "$1/src" "$1/cargo" "$1/out" "$1/rust" "$3" "$4"
    # shellcheck disable=SC2016 # expanded inside
    TOOLCHAIN=${TOOLCHAIN-} unshare --mount bash -euc '
        root=$1 source=$2 cargo=$3 out=$4
        mount --bind "$source" "$root/src"
        mount -o remount,bind,ro "$root/src"
        mount --bind "$cargo" "$root/cargo"
        mount --bind "$out" "$root/out"
        if [ -n "$TOOLCHAIN" ]; then mount --bind "$TOOLCHAIN" "$root/rust"; fi
        mount -t proc proc "$root/proc"
        mount --rbind /sys "$root/sys"
        mount --rbind /dev "$root/dev"
        shift 4
        exec chroot "$root" env -i PATH=/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
            CARGO_HOME=/cargo CARGO_TARGET_DIR=/out "$@"
    ' bash "$@"
}
