package ntp

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"lodge/gateway"
)

// sent is the transmit time of the test's client, which the reply must have as the origin.
var sent = []byte{1, 2, 3, 4, 5, 6, 7, 8}

func request(first byte, size int) []byte {
	b := make([]byte, max(size, headerBytes))
	b[0], b[2] = first, 6
	copy(b[40:], sent)
	return b[:size]
}

func fixed(at time.Time) *Server {
	return &Server{Logger: slog.New(slog.DiscardHandler), now: func() time.Time { return at }}
}

func TestAnswer(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 0, 0, 500_000_000, time.UTC)
	for _, tt := range []struct {
		name  string
		first byte
		size  int
		want  byte // first byte of the answer; 0 is none
	}{
		{"version 4", 0x23, 48, 0x24},
		{"version 3", 0x1b, 48, 0x1c},
		{"version 1", 0x0b, 48, 0x0c},
		{"leap alarm of the client", 0xe3, 48, 0x24},
		{"with extension", 0x23, 68, 0x24},
		{"too short", 0x23, 47, 0},
		{"empty", 0x23, 0, 0},
		{"version 0", 0x03, 48, 0},
		{"version 5", 0x2b, 48, 0},
		{"symmetric active", 0x21, 48, 0},
		{"server", 0x24, 48, 0},
		{"broadcast", 0x25, 48, 0},
		{"control", 0x26, 48, 0},
		{"private", 0x27, 48, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reply, ok := fixed(at).answer(request(tt.first, tt.size), at)
			if ok != (tt.want != 0) || reply[0] != tt.want {
				t.Fatalf("answer %x, %v; want %x", reply[0], ok, tt.want)
			}
			if !ok {
				return
			}
			if !bytes.Equal(reply[24:32], sent) {
				t.Errorf("origin is %x, want the client's transmit time", reply[24:32])
			}
			for _, field := range []int{16, 32, 40} {
				if got := fromTimestamp(reply[field:]); !got.Equal(at) {
					t.Errorf("time at %d is %s, want %s", field, got, at)
				}
			}
			if reply[1] != stratum || reply[2] != 6 || int8(reply[3]) != precision {
				t.Errorf("stratum, poll, precision are %v", reply[1:4])
			}
		})
	}
}

// The count of seconds begins again in 2036.
func TestTimestampWraps(t *testing.T) {
	at := time.Date(2036, 2, 7, 6, 28, 17, 0, time.UTC)
	if got := timestamp(at) >> 32; got != 1 {
		t.Errorf("second %d of the new era, want 1", got)
	}
}

func fromTimestamp(b []byte) time.Time {
	v := binary.BigEndian.Uint64(b)
	return time.Unix(int64(v>>32)-epoch, int64((v&0xffffffff)*1e9>>32))
}

func TestServeUDP(t *testing.T) {
	server, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { New(slog.New(slog.DiscardHandler)).ServeUDP(gateway.Identity{Name: "blog"}, server) })
	defer serving.Wait() // it ends with its socket
	defer server.Close()
	client, err := new(net.Dialer).DialContext(t.Context(), "udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{nil, request(0x23, 10), request(0x24, 48), request(0x23, 48)} { // the last one is answered
		if _, err := client.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	reply := make([]byte, 100)
	n, err := client.Read(reply)
	if err != nil || n != headerBytes {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if off := time.Since(fromTimestamp(reply[40:])); off < 0 || off > 10*time.Second {
		t.Errorf("the time is off by %s", off)
	}
}

// Whatever is sent, an answer goes to clients alone, is no longer than the request, and returns the client's time.
func FuzzAnswer(f *testing.F) {
	f.Add(request(0x23, 48))
	f.Add(request(0x24, 48))
	f.Add(request(0x23, 47))
	f.Fuzz(func(t *testing.T, b []byte) {
		reply, ok := fixed(time.Unix(0, 0)).answer(b, time.Unix(0, 0))
		if !ok {
			return
		}
		if len(b) < len(reply) || b[0]&7 != modeClient || reply[0]&7 != modeServer || !bytes.Equal(reply[24:32], b[40:48]) {
			t.Errorf("%x is answered with %x", b, reply)
		}
	})
}
