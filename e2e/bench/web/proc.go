package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// processes are the peer's process and its children, such as nginx's workers.
func (p *peer) processes() ([]string, error) {
	all := []string{strconv.Itoa(p.cmd.Process.Pid)}
	for i := 0; i < len(all); i++ {
		tasks, err := filepath.Glob("/proc/" + all[i] + "/task/*/children")
		if err != nil {
			return nil, err
		}
		for _, file := range tasks {
			children, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			all = append(all, strings.Fields(string(children))...)
		}
	}
	return all, nil
}

// cpu is the time that all threads of the peer have used. Scheduler statistics count nanoseconds.
func (p *peer) cpu() (time.Duration, error) {
	all, err := p.processes()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, pid := range all {
		files, err := filepath.Glob("/proc/" + pid + "/task/*/schedstat")
		if err != nil {
			return 0, err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return 0, err
			}
			var ns int64
			if _, err := fmt.Sscan(string(text), &ns); err != nil {
				return 0, fmt.Errorf("read %s: %w", file, err)
			}
			sum += time.Duration(ns)
		}
	}
	return sum, nil
}

// memory is the peer's proportional set size, in MB.
func (p *peer) memory() (float64, error) {
	all, err := p.processes()
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, pid := range all {
		file := "/proc/" + pid + "/smaps_rollup"
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), "\nPss:")
		var kib float64
		if _, err := fmt.Sscan(rest, &kib); err != nil {
			return 0, fmt.Errorf("read %s: %w", file, err)
		}
		sum += kib * 1024 / 1e6
	}
	return sum, nil
}
