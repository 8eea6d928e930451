package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"lodge/gateway"
)

// The victim is the process that TestKill kills. Each of its writers has names of its own, and prints a line
// before and after each call, in one write each:
//
//	B <writer> <call> <bucket> <name> <argument>
//	A <writer> <result>
//
// A body is written as "seed:size,seed:size": the parts of which it consists.
const (
	victimDir  = "LODGE_STORE_VICTIM"
	victimSeed = "LODGE_STORE_VICTIM_SEED"
)

const victimWriters = 6

func victim(dir string) int {
	seed, err := strconv.ParseUint(os.Getenv(victimSeed), 10, 64)
	if err != nil {
		return 2
	}
	s, err := Open(dir, Config{Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), MinPart: 1})
	if err != nil {
		fmt.Fprintln(os.Stderr, "open:", err)
		return 2
	}
	var wg sync.WaitGroup
	for i := range victimWriters {
		wg.Go(func() {
			w := &victimWriter{s: s, number: i, r: rand.New(rand.NewPCG(seed, uint64(i))), seed: seed*1_000_000 + uint64(i)*100_000}
			if err := w.run(); err != nil {
				fmt.Fprintln(os.Stderr, "victim:", err)
				os.Exit(3)
			}
		})
	}
	wg.Go(func() {
		if err := goBackAndForth(s); err != nil {
			fmt.Fprintln(os.Stderr, "victim:", err)
			os.Exit(3)
		}
	})
	wg.Wait()
	return 0
}

// goBackAndForth takes, restores, forks and drops snapshots of another VM. A snapshot that a run before has left is
// of one generation of bodies, and so is a later one after that.
func goBackAndForth(s *Store) error {
	left, err := s.Snapshots(shop)
	if err != nil {
		return err
	}
	for _, at := range left {
		if err := errors.Join(s.Restore(shop, at), oneGeneration(s, shop)); err != nil {
			return fmt.Errorf("snapshot of the run before: %w", err)
		}
	}
	for _, at := range left {
		if err := s.Drop(shop, at); err != nil {
			return fmt.Errorf("snapshot of the run before: %w", err)
		}
	}
	for generation := uint64(1); ; generation++ {
		if err := putGeneration(s, generation); err != nil {
			return err
		}
		release, err := s.Snapshot(shop, "old")
		if err != nil {
			return err
		}
		release()
		s.stepSize = 2
		fork := gateway.NewID()
		err = errors.Join(putGeneration(s, generation+100), s.Fork(shop, "old", fork), oneGeneration(s, fork), s.Remove(fork))
		if err != nil {
			return fmt.Errorf("fork: %w", err)
		}
		if release, err = s.Snapshot(shop, "new"); err != nil {
			return err
		}
		release()
		err = errors.Join(s.Restore(shop, "old"), oneGeneration(s, shop), s.Restore(shop, "new"), oneGeneration(s, shop),
			s.Drop(shop, "old"), s.Restore(shop, "new"), oneGeneration(s, shop), s.Drop(shop, "new"))
		if err != nil {
			return fmt.Errorf("snapshots: %w", err)
		}
	}
}

func putGeneration(s *Store, n uint64) error {
	for i := range 5 {
		body := binary.BigEndian.AppendUint64(nil, n)
		body = append(body, random(n, maxSmall-10+i)...)
		_, err := s.Put(context.Background(), Key{shop, "box", fmt.Sprint(i)}, Write{Body: bytes.NewReader(body), Size: -1})
		if err != nil {
			return err
		}
	}
	return nil
}

func oneGeneration(s *Store, vm gateway.ID) error {
	var first []byte
	for i := range 5 {
		got, err := read(s, Key{vm, "box", fmt.Sprint(i)}, "")
		if err != nil {
			return err
		}
		if i == 0 {
			first = got
		}
		if len(got) != maxSmall-2+i || !bytes.Equal(got[:8], first[:8]) {
			return fmt.Errorf("object %d is of another generation", i)
		}
	}
	return nil
}

type victimWriter struct {
	s      *Store
	number int
	r      *rand.Rand
	seed   uint64
	made   []string // versions of this run: name, a blank, id
}

// buildBody returns the body that a text describes.
func buildBody(told string) []byte {
	var body []byte
	for piece := range strings.SplitSeq(told, ",") {
		seed, size, _ := strings.Cut(piece, ":")
		n, _ := strconv.ParseUint(seed, 10, 64)
		m, _ := strconv.Atoi(size)
		body = append(body, random(n, m)...)
	}
	return body
}

func (w *victimWriter) newBody() string {
	w.seed++
	sizes := []int{0, 10, 4096, maxSmall, maxSmall + 1, 200_000, chunkBytes + 5}
	return fmt.Sprintf("%d:%d", w.seed, sizes[w.r.IntN(len(sizes))])
}

func (w *victimWriter) run() error {
	for {
		name := fmt.Sprintf("%d/%d", w.number, w.r.IntN(5))
		var err error
		switch w.r.IntN(9) {
		case 0, 1:
			err = w.put("plain", name)
		case 2:
			err = w.put("versions", name)
		case 3:
			err = w.call("delete", "plain", name, "-", func(key Key) (string, error) {
				_, err := w.s.Delete(context.Background(), key, "", Condition{}, false)
				return "-", err
			})
		case 4:
			err = w.copy(name)
		case 5, 6:
			err = w.multipart(name)
		case 7:
			err = w.call("mark", "versions", name, "-", func(key Key) (string, error) {
				o, err := w.s.Delete(context.Background(), key, "", Condition{}, false)
				return o.Version, err
			})
		case 8:
			err = w.deleteVersion()
		}
		if err != nil {
			return err
		}
	}
}

// call prints, calls and prints.
func (w *victimWriter) call(verb, bucket, name, argument string, f func(Key) (string, error)) error {
	fmt.Fprintf(os.Stdout, "B %d %s %s %s %s\n", w.number, verb, bucket, name, argument)
	result, err := f(Key{blog, bucket, name})
	if err != nil {
		return fmt.Errorf("%s %s %s: %w", verb, bucket, name, err)
	}
	fmt.Fprintf(os.Stdout, "A %d %s\n", w.number, result)
	return nil
}

func (w *victimWriter) put(bucket, name string) error {
	told := w.newBody()
	return w.call("put", bucket, name, told, func(key Key) (string, error) {
		o, err := w.s.Put(context.Background(), key, Write{Body: bytes.NewReader(buildBody(told)), Size: -1})
		if bucket == "versions" {
			w.made = append(w.made, name+" "+o.Version)
		}
		return o.Version, err
	})
}

func (w *victimWriter) copy(name string) error {
	from := fmt.Sprintf("%d/%d", w.number, w.r.IntN(5))
	if _, err := w.s.Head(Key{blog, "plain", from}, ""); err != nil {
		return nil //nolint:nilerr // there is nothing to copy
	}
	return w.call("copy", "plain", name, from, func(key Key) (string, error) {
		o, err := w.s.Copy(context.Background(), Key{blog, "plain", from}, "", key, CopyOptions{})
		return o.Version, err
	})
}

func (w *victimWriter) multipart(name string) error {
	var told []string
	for range 3 {
		piece := w.newBody()
		if strings.HasSuffix(piece, ":0") { // MinPart refuses empty parts
			piece += "7"
		}
		told = append(told, piece)
	}
	return w.call("put", "plain", name, strings.Join(told, ","), func(key Key) (string, error) {
		u, err := w.s.NewUpload(key, UploadOptions{})
		if err != nil {
			return "", err
		}
		var listed []CompletedPart
		for i, t := range append(told, "1:50000") { // the last part is not listed
			p, err := w.s.PutPart(context.Background(), key, u.ID, i+1, Write{Body: bytes.NewReader(buildBody(t)), Size: -1})
			if err != nil {
				return "", err
			}
			if i < len(told) {
				listed = append(listed, CompletedPart{Number: i + 1, ETag: p.ETag})
			}
		}
		o, err := w.s.Complete(context.Background(), key, u.ID, listed, Completion{})
		return o.Version, err
	})
}

func (w *victimWriter) deleteVersion() error {
	if len(w.made) == 0 {
		return nil
	}
	i := w.r.IntN(len(w.made))
	name, id, _ := strings.Cut(w.made[i], " ")
	w.made = slices.Delete(w.made, i, i+1)
	return w.call("remove", "versions", name, id, func(key Key) (string, error) {
		_, err := w.s.Delete(context.Background(), key, id, Condition{}, false)
		return "-", err
	})
}
