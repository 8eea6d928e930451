#!/bin/sh
# Gives a VM its names, network, keys, trusted certificates and settings. Lodge images run it before
# the network is up (lodge-seed.service); other cloud images run it as a boothook of the vendor
# data. It acts once per instance.
set -eu
umask 022
last=
[ ! -e /etc/lodge/instance ] || read -r last </etc/lodge/instance || true
[ "$last" != "${INSTANCE_ID:?}" ] || exit 0

# A fork has the disk of another VM: nothing of what identifies that one stays. Process 1 reads the
# machine id once, so it executes itself anew.
if [ -n "$last" ]; then
	umount -l /etc/machine-id 2>/dev/null || true
	rm -f /var/lib/systemd/random-seed /etc/ssh/ssh_host_*
	echo "$INSTANCE_ID" | tr -d - >/etc/machine-id.new
	mv -f /etc/machine-id.new /etc/machine-id
	[ ! -d /var/lib/dbus ] || ln -sf /etc/machine-id /var/lib/dbus/machine-id
	chmod 444 /etc/machine-id
	if systemctl daemon-reexec; then # fails where systemd does not run
		n=0
		until systemctl show-environment >/dev/null 2>&1 || [ $((n += 1)) -gt 100 ]; do sleep 0.1; done
		systemctl try-restart --no-block systemd-journald.service || true
	fi
fi

# Each program takes a tenth of a second to start under TCG, so the shell does what it can.
[ -d /home/lodge ] || id -u lodge >/dev/null 2>&1 || useradd --create-home --shell /bin/bash --comment Lodge lodge
unpack() { tar -x --no-overwrite-dir -C / "$@"; }
if [ -e /run/lodge/seed/files.tar ]; then
	unpack -f /run/lodge/seed/files.tar
else
	base64 -d <<'END' | unpack -z
@FILES@
END
fi
read -r name </etc/hostname
echo "$name" >/proc/sys/kernel/hostname

# PAM (logins, cron) and systemd (units) read these; the file in system.conf.d takes effect at the
# next boot.
set --
while read -r variable; do set -- "$@" "$variable"; done </etc/lodge/environment
[ -s /etc/environment ] && grep -q '^AWS_ENDPOINT_URL_S3=' /etc/environment || printf '%s\n' "$@" >>/etc/environment
systemctl set-environment "$@" & # fails where systemd does not run

# As update-ca-certificates(8) would, which takes ten seconds under TCG. The archive has the links
# in /etc/ssl/certs.
ca=/usr/local/share/ca-certificates/lodge.crt
bundle=/etc/ssl/certs/ca-certificates.crt
if [ -s "$ca" ]; then
	{ read -r _ && read -r line; } <"$ca"
	grep -qsF "$line" "$bundle" || cat "$ca" >>"$bundle"
fi

wait
echo "$INSTANCE_ID" >/etc/lodge/instance.new
sync
mv /etc/lodge/instance.new /etc/lodge/instance
