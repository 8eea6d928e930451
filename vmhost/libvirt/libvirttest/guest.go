package libvirttest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Greeting is the first thing that the tiny guest writes to its serial console.
const Greeting = "tiny guest\r\n"

// Keys that the tiny guest acts on when it reads them from its serial console. It echoes others.
const (
	KeyPowerOff = "p" // power off by ACPI
	KeyReset    = "r" // reset through the keyboard controller
	KeyDeaf     = "d" // ignore the power button from now on; echoed when done
	KeyWrite    = "w" // write a sector in the middle of the disk; echoed when done
	KeyPanic    = "c" // report a crash by pvpanic
)

// TinyDisk writes a raw disk whose boot sector is a complete guest: it writes Greeting, acts on its
// keys, and powers off at the power button. It runs within a second, without a kernel.
func TinyDisk(tb testing.TB, path string) {
	tb.Helper()
	TinyDiskWith(tb, path, Greeting)
}

// TinyDiskWith is TinyDisk with a greeting of at most 298 bytes.
func TinyDiskWith(tb testing.TB, path, greeting string) {
	tb.Helper()
	disk := make([]byte, 1<<20)
	copy(disk, bootSector(greeting))
	disk[446+4] = 0x83 // a Linux partition, for readers of the table
	disk[510], disk[511] = 0x55, 0xaa
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// bootSector is 16-bit code for 0000:7c00 on QEMU's "pc" board (PIIX4 power management at port
// 0x600, COM1 at 0x3f8, pvpanic at 0x505).
func bootSector(greeting string) []byte {
	return slices.Concat(greetCode(), loopCode(), keyCode(), []byte(greeting+"\x00"))
}

// greetCode writes the greeting and turns the power button on.
func greetCode() []byte {
	return []byte{
		0x31, 0xc0, // start: xor ax, ax
		0x8e, 0xd8, //        mov ds, ax
		0x8e, 0xd0, //        mov ss, ax
		0xbc, 0x00, 0x7c, //  mov sp, 0x7c00
		0xbe, 0x92, 0x7c, //  mov si, greeting
		0xac,       // greet: lodsb
		0x84, 0xc0, //        test al, al
		0x74, 0x06, //        jz   listen
		0xba, 0xf8, 0x03, //  mov dx, 0x3f8
		0xee,       //        out dx, al
		0xeb, 0xf5, //        jmp greet
		0xba, 0x02, 0x06, // listen: mov dx, 0x602 (PM1 enable)
		0xb8, 0x00, 0x01, //  mov ax, 0x100 (power button)
		0xef, //  out dx, ax
	}
}

// loopCode waits for the power button or a key.
func loopCode() []byte {
	return []byte{
		0xba, 0x00, 0x06, // loop: mov dx, 0x600 (PM1 status)
		0xed,             //  in ax, dx
		0xf6, 0xc4, 0x01, //  test ah, 1 (power button)
		0x75, 0x44, //        jnz off
		0xba, 0xfd, 0x03, //  mov dx, 0x3fd (line status)
		0xec,       //        in al, dx
		0xa8, 0x01, //        test al, 1 (data ready)
		0x74, 0x19, //        jz idle
		0xba, 0xf8, 0x03, //  mov dx, 0x3f8
		0xec,      //        in al, dx
		0x3c, 'p', //        cmp al, 'p'
		0x74, 0x34, //        je off
		0x3c, 'r', //         cmp al, 'r'
		0x74, 0x39, //        je reset
		0x3c, 'd', //         cmp al, 'd'
		0x74, 0x0d, //        je deaf
		0x3c, 'w', //         cmp al, 'w'
		0x74, 0x12, //        je write
		0x3c, 'c', //         cmp al, 'c'
		0x74, 0x33, //        je panic
		0xee,       //        out dx, al
		0xfb,       // idle:  sti
		0xf4,       //        hlt
		0xeb, 0xd2, //        jmp loop
	}
}

// keyCode is what the keys do.
func keyCode() []byte {
	return []byte{
		0xee,             // deaf: out dx, al
		0xba, 0x02, 0x06, //  mov dx, 0x602
		0x31, 0xc0, //        xor ax, ax
		0xef,       //        out dx, ax
		0xeb, 0xf3, //        jmp idle
		0xbe, 0x82, 0x7c, // write: mov si, packet
		0xb8, 0x00, 0x43, //  mov ax, 0x4300 (extended write)
		0xb2, 0x80, //        mov dl, 0x80 (the first disk)
		0xcd, 0x13, //        int 0x13
		0xb0, 'w', //         mov al, 'w'
		0x73, 0x02, //        jnc done
		0xb0, '!', //         mov al, '!'
		0xba, 0xf8, 0x03, // done: mov dx, 0x3f8
		0xee,       //        out dx, al
		0xeb, 0xdd, //        jmp idle
		0xba, 0x04, 0x06, // off: mov dx, 0x604 (PM1 control)
		0xb8, 0x00, 0x20, //  mov ax, 0x2000 (sleep enable, type S5)
		0xef,       //        out dx, ax
		0xeb, 0xd4, //        jmp idle
		0xb0, 0xfe, // reset: mov al, 0xfe
		0xe6, 0x64, //        out 0x64, al
		0xeb, 0xce, //        jmp idle
		0xba, 0x05, 0x05, // panic: mov dx, 0x505
		0xb0, 0x01, //        mov al, 1 (panicked)
		0xee,       //        out dx, al
		0xeb, 0xc6, //        jmp idle
		16, 0, 1, 0, // packet: 1 sector
		0x00, 0x7c, 0, 0, // from 0000:7c00
		0, 0, 0x10, 0, 0, 0, 0, 0, // to sector 0x100000
	}
}
