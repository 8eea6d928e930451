#!/bin/sh
# mmdebstrap runs this with the root's path once all packages are in it. What it does would be the same on any machine.
set -eu
root=$1

chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash --groups adm,sudo --comment Lodge lodge
echo 'lodge ALL=(ALL) NOPASSWD:ALL' >"$root/etc/sudoers.d/lodge"
chmod 0440 "$root/etc/sudoers.d/lodge"

chroot "$root" systemctl --quiet enable systemd-networkd.service serial-getty@ttyS0.service lodge-seed.service lodge-user-data.service
# Nothing in a VM needs these at boot; under TCG each costs between a tenth of a second and two seconds.
chroot "$root" systemctl --quiet disable e2scrub_reap.service
chroot "$root" systemctl --quiet mask modprobe@drm.service modprobe@efi_pstore.service modprobe@configfs.service \
	modprobe@fuse.service sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount systemd-pstore.service \
	systemd-network-generator.service systemd-udev-load-credentials.service \
	systemd-networkd-persistent-storage.service
mkdir -p "$root/etc/systemd/system-generators"
# cloud-init is started by lodge-user-data.service, if at all.
for generator in cloud-init-generator systemd-ssh-generator systemd-hibernate-resume-generator systemd-integritysetup-generator systemd-tpm2-generator; do
	ln -s /dev/null "$root/etc/systemd/system-generators/$generator"
done

# The guest is an ordinary Debian from here on: only this build left out manuals and recommended packages.
rm -f "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap

# Names and keys are each VM's own, and come with its seed.
rm -f "$root"/etc/ssh/ssh_host_* "$root"/var/lib/dbus/machine-id "$root"/etc/resolv.conf "$root"/*.old
: >"$root/etc/machine-id"
echo localhost >"$root/etc/hostname"
echo LANG=C.UTF-8 >"$root/etc/default/locale"
echo 'nameserver 169.254.169.254' >"$root/etc/resolv.conf"
printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
rm -rf "$root"/var/log/*.log "$root"/var/log/apt "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old

# Or else the first boot would rebuild what the packages have just built (systemd-update-done.service(8)).
touch "$root/etc/.updated" "$root/var/.updated"
