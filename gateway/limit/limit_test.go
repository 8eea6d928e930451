package limit_test

import (
	"sync"
	"testing"

	"lodge/gateway/limit"
)

func TestEnterStopsAtEachAndAtAll(t *testing.T) {
	l := limit.New[string](2, 3)
	var leaves []func()
	for _, step := range []struct {
		key string
		ok  bool
	}{{"a", true}, {"a", true}, {"a", false}, {"b", true}, {"b", false}, {"c", false}} {
		leave, ok := l.Enter(step.key)
		if ok != step.ok || ok != (leave != nil) {
			t.Errorf("enter %s: ok %v, leave %v; want %v", step.key, ok, leave != nil, step.ok)
		}
		if ok {
			leaves = append(leaves, leave)
		}
	}
	leaves[0]()
	leaves[0]() // counts once
	if each, all := l.Held("a"); each != 1 || all != 2 {
		t.Errorf("held %d, %d; want 1, 2", each, all)
	}
	if _, ok := l.Enter("c"); !ok {
		t.Error("no room after one has left")
	}
}

func TestZeroIsNoLimit(t *testing.T) {
	l := limit.New[int](0, 0)
	for range 10_000 {
		if _, ok := l.Enter(1); !ok {
			t.Fatal("refused")
		}
	}
}

func TestManyAtOnceNeverPassTheLimit(t *testing.T) {
	l := limit.New[int](5, 8)
	var group sync.WaitGroup
	for i := range 64 {
		group.Go(func() {
			for range 200 {
				leave, ok := l.Enter(i % 2)
				if !ok {
					continue
				}
				if each, all := l.Held(i % 2); each > 5 || all > 8 {
					t.Errorf("held %d, %d", each, all)
				}
				leave()
			}
		})
	}
	group.Wait()
	if each, all := l.Held(0); each != 0 || all != 0 {
		t.Errorf("left over: %d, %d", each, all)
	}
}
