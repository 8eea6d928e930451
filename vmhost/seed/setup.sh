#!/bin/sh
# Sets a VM up as its own: names, network, keys, trust, and the settings that tools read. Lodge images run it before the network
# is up (lodge-seed.service); other cloud images run it as a boothook of the vendor data. It acts once per instance.
set -eu
umask 022
mkdir -p /etc/lodge
[ "$(cat /etc/lodge/instance 2>/dev/null)" != "${INSTANCE_ID:?}" ] || exit 0

id -u lodge >/dev/null 2>&1 || useradd --create-home --shell /bin/bash --comment Lodge lodge
base64 -d <<'END' | tar -xz --no-overwrite-dir -C /
@FILES@
END
hostname "$(cat /etc/hostname)"

# PAM (logins, cron) and systemd (units) read these; the file in system.conf.d counts from the next boot on.
grep -qs '^AWS_ENDPOINT_URL_S3=' /etc/environment || cat /etc/lodge/environment >>/etc/environment
xargs systemctl set-environment </etc/lodge/environment || true # not where systemd does not run

# As update-ca-certificates(8) would, which takes ten seconds under TCG.
ca=/usr/local/share/ca-certificates/lodge.crt
bundle=/etc/ssl/certs/ca-certificates.crt
if [ -s "$ca" ]; then
	ln -sf "$ca" /etc/ssl/certs/lodge.pem
	ln -sf lodge.pem "/etc/ssl/certs/$(openssl x509 -noout -subject_hash -in "$ca").0"
	grep -qsF "$(sed -n 2p "$ca")" "$bundle" || cat "$ca" >>"$bundle"
fi

echo "$INSTANCE_ID" >/etc/lodge/instance.new
sync
mv /etc/lodge/instance.new /etc/lodge/instance
