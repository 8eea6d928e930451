package store

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

var kills = flag.Int("kills", 5, "how often TestKill kills the writers")

// TestKill kills a process that writes, at random moments. What it had acknowledged is there, what it had deleted
// is not, a call that was in progress is done or not done, and no file is left over.
func TestKill(t *testing.T) {
	k := &killed{t: t, dir: t.TempDir(), plain: map[string]string{}, versions: map[string]string{}}
	s := open(t, k.dir)
	for _, bucket := range []string{"plain", "versions"} {
		_, err := s.CreateBucket(blog, bucket, false)
		must(t, err)
	}
	must(t, s.ConfigureBucket(blog, "versions", func(b *Bucket) error { b.Versioning = Enabled; return nil }))
	must(t, s.Close())
	for i := range *kills {
		k.killOne(uint64(i + 1))
		k.compare()
		if t.Failed() {
			t.Fatalf("after kill %d", i+1)
		}
	}
	t.Logf("%d kills, %d acknowledged calls, %d names, %d versions", *kills, k.acknowledged, len(k.plain), len(k.versions))
}

// killed is what the store must have: of each name, and of each name and version, the text of its body; "" for
// none and "-" for a delete marker.
type killed struct {
	t               *testing.T
	dir             string
	plain, versions map[string]string
	open            [victimWriters][]string // the call of each writer that was not acknowledged
	acknowledged    int
}

// killOne runs the victim for a random time, and follows what it prints.
func (k *killed) killOne(seed uint64) {
	self, err := os.Executable()
	must(k.t, err)
	cmd := exec.CommandContext(k.t.Context(), self)
	cmd.Env = append(os.Environ(), victimDir+"="+k.dir, victimSeed+"="+strconv.FormatUint(seed, 10))
	cmd.Stderr = k.t.Output()
	out, err := cmd.StdoutPipe()
	must(k.t, err)
	must(k.t, cmd.Start())
	k.open = [victimWriters][]string{}
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		if n == 0 { // the moment is random, so nothing depends on how long this takes
			time.AfterFunc(time.Duration(20+rand.IntN(400))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		}
		k.line(strings.Fields(lines.Text()))
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Exited() {
		k.t.Fatalf("the victim ended by itself: %v", err)
	}
}

func (k *killed) line(f []string) {
	writer, err := strconv.Atoi(f[1])
	must(k.t, err)
	if f[0] == "B" {
		k.open[writer] = f[2:]
		return
	}
	call := k.open[writer]
	k.open[writer] = nil
	k.acknowledged++
	k.apply(call, f[2])
}

// apply changes what must be there by a call that was done.
func (k *killed) apply(call []string, result string) {
	verb, bucket, name, argument := call[0], call[1], call[2], call[3]
	switch {
	case verb == "copy":
		k.plain[name] = k.plain[argument]
	case verb == "delete":
		k.plain[name] = ""
	case verb == "mark":
		k.versions[name+" "+result] = "-"
	case verb == "remove":
		k.versions[name+" "+argument] = ""
	case bucket == "plain":
		k.plain[name] = argument
	default:
		k.versions[name+" "+result] = argument
	}
}

// compare opens the store after a kill. First it finds out which of the calls in progress were done.
func (k *killed) compare() {
	s := open(k.t, k.dir)
	for _, call := range k.open {
		if call != nil {
			k.settle(s, call)
		}
	}
	for name, told := range k.plain {
		got, err := read(s, Key{blog, "plain", name}, "")
		if told == "" && !errors.Is(err, ErrNoKey) {
			k.t.Errorf("%s is back: %v", name, err)
		}
		if told != "" && (err != nil || !bytes.Equal(got, buildBody(told))) {
			k.t.Errorf("%s has %d bytes, %v; want %s", name, len(got), err, told)
		}
	}
	k.compareVersions(s)
	for _, d := range checked(k.t, s) {
		k.t.Errorf("damage: %+v", d)
	}
	if left, err := os.ReadDir(s.path("blobs", "new")); err != nil || len(left) > 0 {
		k.t.Errorf("left in blobs/new: %v, %v", left, err)
	}
	must(k.t, s.Close())
}

func (k *killed) compareVersions(s *Store) {
	want := 0
	for nameID, told := range k.versions {
		name, id, _ := strings.Cut(nameID, " ")
		got, err := read(s, Key{blog, "versions", name}, id)
		switch told {
		case "":
			if !errors.Is(err, ErrNoVersion) && !errors.Is(err, ErrNoKey) {
				k.t.Errorf("version %s is back: %v", nameID, err)
			}
			continue
		case "-":
			if !errors.Is(err, ErrDeleted) {
				k.t.Errorf("marker %s: %v", nameID, err)
			}
		default:
			if err != nil || !bytes.Equal(got, buildBody(told)) {
				k.t.Errorf("version %s has %d bytes, %v; want %s", nameID, len(got), err, told)
			}
		}
		want++
	}
	if got := len(versionsOf(k.t, s, "")); got != want {
		k.t.Errorf("%d versions, want %d", got, want)
	}
}

// versionsOf lists the versions of a name, or of all.
func versionsOf(t testing.TB, s *Store, name string) (all []Object) {
	t.Helper()
	q := Query{VM: blog, Bucket: "versions", Prefix: name, Versions: true}
	for {
		p, err := s.List(t.Context(), q)
		must(t, err)
		all = append(all, p.Objects...)
		if !p.More {
			return all
		}
		q.After, q.AfterVersion = p.Next, p.NextVersion
	}
}

// settle applies a call that was in progress if the store has its result.
func (k *killed) settle(s *Store, call []string) {
	verb, bucket, name, argument := call[0], call[1], call[2], call[3]
	if bucket == "versions" && verb != "remove" {
		for _, o := range versionsOf(k.t, s, name) {
			if _, known := k.versions[name+" "+o.Version]; !known && o.Deleted == (verb == "mark") {
				k.apply(call, o.Version)
			}
		}
		return
	}
	id := ""
	if verb == "remove" {
		id = argument
	}
	got, err := read(s, Key{blog, bucket, name}, id)
	done := false
	switch verb {
	case "put":
		done = err == nil && bytes.Equal(got, buildBody(argument))
	case "copy":
		done = err == nil && bytes.Equal(got, buildBody(k.plain[argument]))
	case "delete", "remove":
		done = errors.Is(err, ErrNoKey) || errors.Is(err, ErrNoVersion)
	}
	if done {
		k.apply(call, fmt.Sprint(err))
	}
}
