#!/bin/sh
# mmdebstrap runs this with the path of the root once all packages are installed. It does not depend
# on the host.
set -eu
root=$1

chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash --groups adm,sudo --comment Lodge lodge
echo 'lodge ALL=(ALL) NOPASSWD:ALL' >"$root/etc/sudoers.d/lodge"
chmod 0440 "$root/etc/sudoers.d/lodge"

chroot "$root" systemctl --quiet enable systemd-networkd.service serial-getty@ttyS0.service lodge-seed.service lodge-identity.service lodge-user-data.service \
	lodge-late.service
# No VM needs these; under TCG each costs between a tenth of a second and two seconds.
chroot "$root" systemctl --quiet disable e2scrub_reap.service getty@tty1.service
chroot "$root" systemctl --quiet mask modprobe@drm.service modprobe@efi_pstore.service systemd-pstore.service \
	systemd-network-generator.service systemd-udev-load-credentials.service systemd-networkd-persistent-storage.service

# No target starts the units that lodge-late.service starts, nor one whose work
# systemd-tmpfiles-setup-dev.service does again.
late=$(sed -n 's/.*systemctl start --no-block //p' "$root/usr/lib/lodge/late" "$root/usr/lib/lodge/coldplug")
for unit in $late systemd-tmpfiles-setup-dev-early.service; do
	for wants in sysinit.target.wants multi-user.target.wants; do
		[ ! -e "$root/usr/lib/systemd/system/$wants/$unit" ] || ln -s /dev/null "$root/etc/systemd/system/$wants/$unit"
	done
done
mkdir -p "$root/etc/systemd/system-generators"
# lodge-user-data.service starts cloud-init, if there is user data.
for generator in cloud-init-generator systemd-gpt-auto-generator systemd-ssh-generator systemd-hibernate-resume-generator systemd-integritysetup-generator systemd-tpm2-generator; do
	ln -s /dev/null "$root/etc/systemd/system-generators/$generator"
done

# The clock comes from the host, by NTP from the gateway (and by ptp_kvm, see lodge/clock). It steps
# at any time: a VM that was suspended is behind when it resumes.
sed -i -e 's/^pool .*/server 169.254.169.254 iburst minpoll 4 maxpoll 6/' -e 's/^makestep .*/makestep 1 -1/' \
	-e 's/^# Use Debian vendor zone\./# Lodge: the gateway answers from the clock of the host./' \
	-e 's/^# one second, but only in the first three clock updates\./# one second. Lodge: at any time, because a VM may have been suspended./' \
	"$root/etc/chrony/chrony.conf"
grep -q '^server 169\.254\.169\.254 ' "$root/etc/chrony/chrony.conf"
grep -q '^makestep 1 -1$' "$root/etc/chrony/chrony.conf"

# Only this build leaves out manuals and recommended packages: the guest is an ordinary Debian.
rm -f "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap

# The seed brings the names and keys of each VM.
rm -f "$root"/etc/ssh/ssh_host_* "$root"/var/lib/dbus/machine-id "$root"/etc/resolv.conf "$root"/*.old
: >"$root/etc/machine-id"
echo localhost >"$root/etc/hostname"
echo LANG=C.UTF-8 >"$root/etc/default/locale"
echo 'nameserver 169.254.169.254' >"$root/etc/resolv.conf"
printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
rm -rf "$root"/var/log/*.log "$root"/var/log/apt "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old

# What lodge diff compares a guest with: a list of all, and the content of small files. mmdebstrap
# removes its 00mmdebstrap after this.
own=$root/etc/apt/apt.conf.d/00mmdebstrap
[ ! -e "$own" ] || mv "$own" "$root/run/"
chroot "$root" sh -s image <"${0%/*}/inventory.sh" >"$root/usr/lib/lodge/image-inventory"
tail -c 6 "$root/usr/lib/lodge/image-inventory" | grep -q '# end'
(cd "$root" && find etc usr/local -xdev -type f -size -129b ! -path 'etc/ssl/certs/*' ! -name '*shadow*' -print0 | LC_ALL=C sort -z | tar -c --null -T -) | gzip -9n >"$root/usr/lib/lodge/image-files.tar.gz"
[ ! -e "$root/run/00mmdebstrap" ] || mv "$root/run/00mmdebstrap" "$own"
chmod 0600 "$root/usr/lib/lodge/image-inventory" "$root/usr/lib/lodge/image-files.tar.gz"

# Without these the first boot would rebuild caches that are up to date
# (systemd-update-done.service(8)).
touch "$root/etc/.updated" "$root/var/.updated"
