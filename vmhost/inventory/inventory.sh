#!/bin/sh
# Lists what people and programs change in a Debian: packages, accounts, files, listening ports.
#   inventory [image]
# Each record ends with NUL. A record that begins with "# " begins a section, whose records are:
#   packages   NAME<tab>VERSION<tab>STATE       manual     NAME
#   conffiles  MD5<tab>PATH                     owned      PATH, of any package
#   users, groups: lines of passwd(5), group(5), no password
#   sums       MD5<two spaces>PATH              ports      lines of ss(8)
#   files      TYPE<tab>MODE<tab>UID<tab>GID<tab>BYTES<tab>TIME<tab>PATH, then the link's target
# The last record is "# end". With "image", the ports are left out: they are those of the builder.
set -u
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
section() { printf '# %s\0' "$1"; }
records() { tr '\n' '\0'; }

set -- "${1:-}" /etc /usr/local /opt /srv /home /root /var/www /var/spool/cron
image=$1
shift
for dir; do
	shift
	[ ! -d "$dir" ] || set -- "$@" "$dir"
done

section 'lodge inventory 1'
section packages
dpkg-query -W -f '${binary:Package}\t${Version}\t${db:Status-Status}\n' | records
section manual
apt-mark showmanual | records
section conffiles
dpkg-query -W -f '${Conffiles}\n' | sed -n 's,^ \(/.*\) \([0-9a-f]\{32\}\)$,\2\t\1,p' | records
section owned
cat /var/lib/dpkg/info/*.list | grep -E '^/(etc|usr/local|opt|srv|home|root|var/www|var/spool/cron)(/|$)' | records
section users
grep -v '^#' /etc/passwd | cut -d: -f1,3- | records
section groups
grep -v '^#' /etc/group | cut -d: -f1,3- | records
if [ "$image" != image ]; then
	section ports
	ss -Hlntup 2>/dev/null | records
fi
section sums
find /etc /usr/local -xdev -type f -size -2049b -print0 2>/dev/null | xargs -0r md5sum -z -- 2>/dev/null
section files
find "$@" -xdev \( -name .cache -o -path '/home/*/Maildir' -o -path /root/Maildir -o -path /etc/ssl/certs -o -path /etc/alternatives \) -prune -o \
	-printf '%y\t%m\t%U\t%G\t%s\t%T@\t%p\0%l\0' 2>/dev/null
section end
