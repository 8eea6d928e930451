# The NoCloud seed of a Lodge guest, for the programs seed and identity.
#
# They are in Perl because each program that a guest starts takes a tenth of a second under TCG.
# perl-base, which every Debian has, makes system calls by itself.
package Seed;
use strict;
use warnings;
use Exporter 'import';
our @EXPORT = qw(slurp spew sys bind_over find_seed apply_seed DETACH);

# On amd64 (syscall(2), mount(2), ioctl(2)): perl-base has no table of them.
my %number = (settimeofday => 164, mount => 165, umount => 166);
use constant {RDONLY => 1, REMOUNT => 32, BIND => 4096, DETACH => 2, RNDRESEEDCRNG => 0x5207};

my $dir = "/run/lodge/seed";

# slurp returns a file's content, which is empty if the file cannot be read.
sub slurp {
	my ($file) = @_;
	open(my $f, "<", $file) or return "";
	local $/;
	return <$f> // "";
}

# spew replaces a file's content.
sub spew {
	my ($file, $text) = @_;
	open(my $f, ">", $file) or die "$file: $!\n";
	print $f $text;
	close($f) or die "$file: $!\n";
}

# sys makes a system call.
sub sys {
	my ($name, @arguments) = @_;
	syscall($number{$name}, @arguments) == 0 or die "$name: $!\n";
}

# bind_over makes a file appear, read-only, in the place of another.
sub bind_over {
	my ($file, $over) = @_;
	my $none = "";
	sys("mount", $file, $over, $none, BIND, $none);
	sys("mount", $none, $over, $none, BIND | REMOUNT | RDONLY, $none);
}

# find_seed returns the seed's directory in sysfs, such as /sys/block/vdb, and whether it is that of
# a template's guest. It probes no disk that a Lodge host adds: it reads serial numbers.
sub find_seed {
	for my $file (glob "/sys/block/vd*/serial") {
		my $serial = slurp($file);
		return ($file =~ s{/serial$}{}r, $serial =~ /^template/) if $serial =~ /^(seed|template)$/m;
	}
	my ($device) = `blkid -t LABEL=cidata -o device` =~ m{^/dev/(\S+)};
	return defined $device ? ("/sys/class/block/$device", 0) : ();
}

# apply_seed sets the guest up from the seed on a device. It calls $early with the instance id once
# the random numbers are good, and before setup.sh.
sub apply_seed {
	my ($device, $early) = @_;
	mkdir $_ for "/run/lodge", $dir;
	my ($type, $none) = ("iso9660", "");
	sys("mount", $device, $dir, $type, RDONLY, $none);
	open(my $urandom, ">", "/dev/urandom") or die "urandom: $!\n";
	my $random = slurp("$dir/random");
	length $random && (syswrite($urandom, $random) // 0) == length $random or die "random: $!\n";
	if ($early) { # a resumed kernel may not have noticed yet that it is another machine
		ioctl($urandom, RNDRESEEDCRNG, 0) or die "reseed: $!\n"; # random(4)
	}
	my ($id) = slurp("$dir/meta-data") =~ /^instance-id: *(\S+)/m or die "the seed has no instance-id\n";
	$early->($id, $dir) if $early;
	local $ENV{INSTANCE_ID} = $id;
	system("sh", "$dir/setup.sh") == 0 or die "setup.sh failed\n"; # it does nothing for an instance that is set up
	if (-s "$dir/user-data") {
		spew("/run/lodge/user-data", "");
	} else { # or "cloud-init status --wait" would never return
		mkdir "/run/cloud-init";
		spew("/run/cloud-init/disabled", "");
	}
	sys("umount", $dir, DETACH); # a program may still read its input
}

1;
