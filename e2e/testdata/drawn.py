# Prints values that no two machines may share, one "name value" per line. Runs as root in a guest.
import os, random, socket, struct, subprocess, threading, time, uuid

def run(*args):
    return subprocess.run(args, capture_output=True, text=True, check=True).stdout.strip()

def initial_sequence():
    """The sequence number of the first segment of a connection to the gateway."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL: of the frames that leave, only such a socket gets any
    wire.bind(("eth0", 0))
    wire.settimeout(30)
    until = time.monotonic() + 60
    threading.Thread(target=lambda: socket.create_connection(("169.254.169.254", 80), 30).close()).start()
    while time.monotonic() < until:
        frame, address = wire.recvfrom(65535)
        segment = frame[14 + (frame[14] & 15) * 4:]
        if address[2] == socket.PACKET_OUTGOING and frame[12:14] == b"\x08\0" and frame[23] == 6 and segment[2:4] == b"\0\x50" and segment[13] & 18 == 2:
            return struct.unpack("!I", segment[4:8])[0]
    raise TimeoutError("no SYN was seen")

print("kernel-uuid", open("/proc/sys/kernel/random/uuid").read().strip())
print("boot-id", open("/proc/sys/kernel/random/boot_id").read().strip())
print("machine-id", open("/etc/machine-id").read().strip())
print("hostname", socket.gethostname())
print("mac", open("/sys/class/net/eth0/address").read().strip())
print("host-key", open("/etc/lodge/ssh_host_ed25519_key.pub").read().strip())
print("urandom", os.urandom(16).hex())
print("python-random", random.getrandbits(64))
print("python-uuid4", uuid.uuid4())
print("python-hash", run("python3", "-c", "print(hash('lodge'))"))
print("first-isn", initial_sequence())
os.makedirs("/tmp/drawn", exist_ok=True)
run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/tmp/drawn/ssh")
print("ssh-key", open("/tmp/drawn/ssh.pub").read().split()[1])
print("tls-key", run("openssl", "genpkey", "-algorithm", "ed25519").splitlines()[1])
print("journal", run("sh", "-c", "ls /var/log/journal"))
for line in run("/tmp/drawn.go").splitlines():
    print(line)
services = run("systemctl", "list-units", "--type=service", "--state=running", "--plain", "--no-legend").splitlines()
for unit in (line.split()[0] for line in services):
    print("invocation-" + unit, run("systemctl", "show", "--property=InvocationID", "--value", unit))
