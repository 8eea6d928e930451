# What an agent does to a VM, as root: a package of an archive of its own, a service with its user, a
# timer, a crontab, settings, and secrets.
set -eu
repo=/etc/apt/shop
mkdir -p $repo /tmp/tool/DEBIAN /tmp/tool/usr/bin /tmp/tool/etc
printf 'Package: shop-tool\nVersion: 1.2\nArchitecture: all\nMaintainer: Shop <shop@example.com>\nDescription: counts things\n' >/tmp/tool/DEBIAN/control
echo /etc/shop-tool.conf >/tmp/tool/DEBIAN/conffiles
echo counted >/tmp/tool/etc/shop-tool.conf
printf '#!/bin/sh\necho counted\n' >/tmp/tool/usr/bin/shop-tool
chmod 755 /tmp/tool/usr/bin/shop-tool
dpkg-deb --root-owner-group -b /tmp/tool $repo/shop-tool.deb
cd $repo
{
	dpkg-deb -f shop-tool.deb
	printf 'Filename: ./shop-tool.deb\nSize: %s\nSHA256: %s\n' "$(stat -c %s shop-tool.deb)" "$(sha256sum shop-tool.deb | cut -d' ' -f1)"
} >Packages
echo 'deb [trusted=yes] file:/etc/apt/shop ./' >/etc/apt/sources.list.d/shop.list
apt-get update -qq -o Dir::Etc::sourcelist=sources.list.d/shop.list -o Dir::Etc::sourceparts=-
apt-get install -qq -y shop-tool
rm -r /tmp/tool

useradd --uid 1500 --create-home --shell /usr/sbin/nologin --comment 'The shop' shopkeeper
usermod -aG adm shopkeeper
install -d -o shopkeeper -g shopkeeper -m 2750 /srv/shop
echo '<h1>The shop is open</h1>' >/srv/shop/index.html
printf '\001\002\003binary' >/srv/shop/logo
ln -s index.html /srv/shop/open.html
echo 'PAYMENT_KEY=sk_live_0123456789abcdefghijkl' >/srv/shop/.env
head -c 100000 /dev/zero >/srv/shop/large
ssh-keygen -q -t ed25519 -N '' -f /srv/shop/id_ed25519
chown -R shopkeeper:shopkeeper /srv/shop
cat >/etc/systemd/system/shop.service <<'END'
[Service]
User=shopkeeper
ExecStart=/usr/bin/python3 -m http.server 8000 --directory /srv/shop
[Install]
WantedBy=multi-user.target
END
printf '[Service]\nType=oneshot\nExecStart=/usr/bin/shop-tool\n' >/etc/systemd/system/count.service
printf '[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n' >/etc/systemd/system/count.timer
systemctl enable --now shop.service count.timer
systemctl mask apt-daily.timer
echo '17 4 * * * /usr/bin/shop-tool' | crontab -u shopkeeper -
echo 'welcome to the shop' >/etc/motd
echo 'much counted' >/etc/shop-tool.conf
chmod 0600 /etc/issue
rm /etc/issue.net
