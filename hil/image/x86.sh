# shellcheck shell=bash
# The virtual PC boots the chroot itself, shared over 9p and read-only.

x86() {
    kernel amd64 "$root"
    guest "$root"
    # GStreamer's registry, which an emulated machine would scan for half a minute.
    [ -e "$root/root/.cache/gstreamer-1.0" ] || chroot "$root" env HOME=/root GST_REGISTRY_FORK=no gst-inspect-1.0 > /dev/null
    initramfs "$cache/initramfs-amd64.gz" "$root/bin/busybox" "$root" hil/guest/initramfs virtio_pci 9pnet_virtio 9p overlay
}
