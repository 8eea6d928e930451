package store_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/gateway/store"
)

// BenchmarkOpenFull opens a state of the greatest size that there may be: 10,000 people, 1,000 teams of
// 10, and 100,000 sessions. It reports how much the process grows by that.
func BenchmarkOpenFull(b *testing.B) {
	path := filepath.Join(b.TempDir(), "lodge.db")
	fill(b, path)
	for b.Loop() {
		b.StopTimer()
		debug.FreeOSMemory()
		before := resident(b)
		began := cpu(b)
		b.StartTimer()
		s := open(b, path)
		book, err := people.Open(b.Context(), s.Shared(), "ann@example.org")
		gatewaytest.Must(b, err)
		if len(book.All()) != people.MaxPeople || len(book.Teams()) != people.MaxTeams {
			b.Fatalf("%d people, %d teams", len(book.All()), len(book.Teams()))
		}
		b.StopTimer()
		b.ReportMetric(float64(resident(b)-before)/(1<<20), "MiB")
		b.ReportMetric((cpu(b) - began).Seconds(), "cpu-s/op") // of the last one
		gatewaytest.Must(b, s.Close())
		b.StartTimer()
	}
}

// fill writes a full state straight into the file, a hundred keys at a time.
func fill(tb testing.TB, path string) {
	tb.Helper()
	s := open(tb, path)
	var do []gateway.Op
	put := func(key, value string) {
		if do = append(do, gateway.Op{Key: key, Value: []byte(value)}); len(do) == gateway.MaxCommitOps {
			_, err := s.Shared().Commit(tb.Context(), nil, do)
			gatewaytest.Must(tb, err)
			do = do[:0]
		}
	}
	for i := 1; i <= people.MaxPeople; i++ {
		mail := fmt.Sprintf("somebody.%d@department.example.com", i)
		if i == people.MaxPeople {
			mail = "ann@example.org"
		}
		put(fmt.Sprintf("person/%d", i), `{"mail":"`+mail+`","role":"guest","added":"2026-11-28T20:11:34Z"}`)
		put("person-mail/"+mail, strconv.Itoa(i))
	}
	for i := 1; i <= people.MaxTeams; i++ {
		put(fmt.Sprintf("team/%d", people.MaxPeople+i), fmt.Sprintf(`{"name":"t%d","members":[%d,%d,%d,%d]}`, i, i, i+1000, i+2000, i+3000))
	}
	for i := range gateway.MaxSecrets {
		key, value := store.EncodeSecret(secretKey("session", i), gateway.Secret{
			VM: gateway.NewID(), Person: gateway.Principal(1 + i%people.MaxPeople), Expires: time.Now().Add(time.Hour),
			Data: `{"host":"8080-blog.lodge.localhost","login":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","until":1800000000}`,
		})
		put(key, value)
	}
	gatewaytest.Must(tb, s.Close())
}

// cpu is the time that the process has used.
func cpu(tb testing.TB) time.Duration {
	tb.Helper()
	var used syscall.Rusage
	gatewaytest.Must(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// resident is the memory of the process in bytes.
func resident(tb testing.TB) int64 {
	tb.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	gatewaytest.Must(tb, err)
	pages, err := strconv.ParseInt(string(bytes.Fields(text)[1]), 10, 64)
	gatewaytest.Must(tb, err)
	return pages * int64(os.Getpagesize())
}
