# Prints the state of a guest, for a comparison of two: units, files, settings.
sudo systemctl is-system-running --wait
systemctl list-units --all --plain --no-legend --no-pager --type=service,socket,target,timer,mount,path,swap,automount |
	awk '{print "unit", $1, $2, $3, $4}' | grep -v ' user@\| user-runtime-dir@\| run-user-' | sort
sudo find / -xdev \( -path /var/log/journal -o -path /tmp -o -path '/var/tmp/systemd-private-*' \) -prune -o -printf 'file %p %y %m %u %g\n' | sort
sudo find /etc /var/lib /usr/lib/lodge /root /home -xdev -type f -size -200k -exec sha256sum {} + | awk '{print "content", $2, $1}' | sort
awk '{print "mount", $2, $3}' /proc/mounts | sort
awk '{print "module", $1}' /proc/modules | sort
ip -o addr show | awk '{print "address", $2, $3}'
ip route | sed 's/^/route /'
echo "groups $(id -nG)"
echo "environment $(env | grep AWS | sort | tr '\n' ' ')"
echo "disk $(lsblk -nro SIZE /dev/vda1)"
