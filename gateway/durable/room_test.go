package durable

import "testing"

func TestRoom(t *testing.T) {
	dir := t.TempDir()
	free, reserve, err := Free(dir)
	if err != nil || reserve <= 0 || reserve > maxReserveBytes {
		t.Fatalf("free %d, reserve %d, %v", free, reserve, err)
	}
	if err := Room(dir, free-reserve+maxReserveBytes); !IsFull(err) { // others write meanwhile
		t.Errorf("into the reserve: %v", err)
	}
	if free > 2*reserve {
		if err := Room(dir, 1); err != nil {
			t.Errorf("one byte: %v", err)
		}
	}
	if err := Room(dir+"/none", 1); err == nil || IsFull(err) {
		t.Errorf("no such directory: %v", err)
	}
}
