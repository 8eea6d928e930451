package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// processes are a process and its descendants.
func processes(pid int) ([]string, error) {
	all := []string{strconv.Itoa(pid)}
	for i := 0; i < len(all); i++ {
		tasks, err := filepath.Glob("/proc/" + all[i] + "/task/*/children")
		if err != nil {
			return nil, err
		}
		for _, file := range tasks {
			if children, err := os.ReadFile(file); err == nil { // a thread may have ended
				all = append(all, strings.Fields(string(children))...)
			}
		}
	}
	return all, nil
}

// cpu is the time that a process and its descendants have used, those that have ended included.
func cpu(pid int) (time.Duration, error) {
	all, err := processes(pid)
	if err != nil {
		return 0, err
	}
	var ticks int64
	for _, pid := range all {
		text, err := os.ReadFile("/proc/" + pid + "/stat")
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has ended: its parent has its time from now on
		}
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), ") ") // proc_pid_stat(5): fields 14 to 17 follow the name, which is field 2
		for _, field := range strings.Fields(rest)[11:15] {
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read the CPU time of %s: %w", pid, err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / 100, nil // USER_HZ
}

// rss is the memory of a process, in MiB.
func rss(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\nVmRSS:")
	var kib float64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0, fmt.Errorf("read the memory of %d: %w", pid, err)
	}
	return kib / 1024, nil
}
