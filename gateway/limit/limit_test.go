package limit_test

import (
	"math/rand"
	"reflect"
	"sync"
	"testing"
	"testing/quick"

	"lodge/gateway/limit"
)

func TestEnterStopsAtEachAndAtAll(t *testing.T) {
	l := limit.New[string](2, 4)
	var leaves []func()
	for _, step := range []struct {
		key string
		ok  bool
	}{{"a", true}, {"a", true}, {"a", false}, {"b", true}, {"b", false}, {"c", true}, {"d", false}} {
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
	if each, all := l.Held("a"); each != 1 || all != 3 {
		t.Errorf("held %d, %d; want 1, 3", each, all)
	}
	if _, ok := l.Enter("d"); !ok {
		t.Error("no room after one has left")
	}
}

// Sixteen keys that take turns and take all they get leave the seventeenth as much as each has. One
// after the other they take more, and never all.
func TestGreedyKeysLeaveRoomForTheNext(t *testing.T) {
	const all, greedy = 8192, 16
	l := limit.New[int](0, all)
	for took := true; took; {
		took = false
		for k := range greedy {
			_, ok := l.Enter(k)
			took = took || ok
		}
	}
	each, sum := l.Held(0)
	if free := all - sum; free < all/(greedy+1) || each > all/(greedy+1)+1 {
		t.Errorf("%d keys hold %d each and leave %d; want 1/%d for each, and as much free", greedy, each, free, greedy+1)
	}
	if got := fill(l, greedy); got < all/(greedy+1)/2 {
		t.Errorf("the next key gets %d", got)
	}

	l = limit.New[int](512, all)
	for k := range greedy {
		fill(l, k)
	}
	if got := fill(l, greedy); got < 64 {
		t.Errorf("after %d keys with 512 each or half of the rest, the next gets %d", greedy, got)
	}
}

// fill takes all that k gets, and returns how many that were.
func fill(l *limit.Limit[int], k int) (n int) {
	for {
		if _, ok := l.Enter(k); !ok {
			return n
		}
		n++
	}
}

// The property: whatever the limits and the order of calls, a key is admitted if and only if it
// holds less than its own limit and less than what is free in all.
func TestAdmissionFollowsTheRule(t *testing.T) {
	check := func(each, all uint8, steps []uint8) bool {
		l := limit.New[uint8](int(each), int(all))
		var leaves []func()
		for _, step := range steps {
			if step >= 0xe0 && len(leaves) > 0 {
				last := len(leaves) - 1
				leaves[last]()
				leaves = leaves[:last]
				continue
			}
			key := step % 5
			held, sum := l.Held(key)
			want := (each == 0 || held < int(each)) && (all == 0 || held < int(all)-sum)
			leave, ok := l.Enter(key)
			if ok != want {
				t.Logf("each %d, all %d: key %d with %d of %d: %v", each, all, key, held, sum, ok)
				return false
			}
			if ok {
				leaves = append(leaves, leave)
			}
		}
		for _, leave := range leaves {
			leave()
		}
		_, sum := l.Held(0)
		return sum == 0
	}
	sized := func(args []reflect.Value, random *rand.Rand) {
		steps := make([]uint8, random.Intn(400))
		for i := range steps {
			steps[i] = uint8(random.Intn(256))
		}
		args[0], args[1] = reflect.ValueOf(uint8(random.Intn(40))), reflect.ValueOf(uint8(random.Intn(100)))
		args[2] = reflect.ValueOf(steps)
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 2000, Values: sized}); err != nil {
		t.Error(err)
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
