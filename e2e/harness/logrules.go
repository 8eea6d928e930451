package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// logKeys are the keys that a log line of lodged may have; ARCHITECTURE.md lists them for people.
func logKeys() []string {
	return strings.Fields(`time level msg
		vm vm_id tap remote host path from rcpt queue_id bucket object method status bytes duration err
		addr kvm reason op checkpoint torn damaged stack audience jti event by person team to role level visibility with added removed port passthrough mail id until`)
}

var (
	uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	tapForm  = regexp.MustCompile(`^lg[0-9a-f]{8}$`)
)

// CheckLog returns the faults of a log of lodged in text form, one message per kind. It skips lines
// that are not the logger's, such as the stack of a crash.
func CheckLog(log string) []string {
	faults := map[string]bool{}
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "time=") {
			continue
		}
		fields, err := parseLogLine(strings.TrimSpace(line))
		if err != nil {
			faults[fmt.Sprintf("%v: %s", err, line)] = true
			continue
		}
		for key, value := range fields {
			if fault := logFault(key, value); fault != "" {
				faults[fmt.Sprintf("%q: %s", fields["msg"], fault)] = true
			}
		}
	}
	var all []string
	for fault := range faults {
		all = append(all, fault)
	}
	slices.Sort(all)
	return all
}

// checkLog checks the log of the Host's daemons against the rules.
func (h *Host) checkLog(t testing.TB) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(h.Dir, "lodged.log"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for _, fault := range CheckLog(string(log)) {
		t.Errorf("the log breaks a rule: %s", fault)
	}
}

// logFault returns the fault of one field, or "".
func logFault(key, value string) string {
	var ok bool
	var err error
	switch key {
	case "vm":
		ok = !uuidForm.MatchString(value) && !tapForm.MatchString(value)
	case "vm_id":
		ok = uuidForm.MatchString(value)
	case "tap":
		ok = tapForm.MatchString(value)
	case "bytes", "status":
		_, err = strconv.ParseInt(value, 10, 64)
		ok = err == nil
	case "duration":
		_, err = time.ParseDuration(value)
		ok = err == nil
	case "msg":
		ok = value != "" && len(value) <= 60 && !strings.ContainsAny(value, "=%\"") && !strings.HasSuffix(value, ".")
	default:
		ok = slices.Contains(logKeys(), key)
	}
	if ok {
		return ""
	}
	return fmt.Sprintf("%s=%q", key, value)
}

// parseLogLine reads a line of slog.TextHandler: key=value pairs, the value quoted where needed.
func parseLogLine(line string) (map[string]string, error) {
	fields := map[string]string{}
	for line != "" {
		key, rest, ok := strings.Cut(line, "=")
		if !ok || strings.ContainsAny(key, ` "`) {
			return nil, fmt.Errorf("not key=value: %q", line)
		}
		value, tail, _ := strings.Cut(rest, " ")
		if quoted, err := strconv.QuotedPrefix(rest); err == nil && rest[0] == '"' {
			value, _ = strconv.Unquote(quoted)
			tail = strings.TrimPrefix(rest[len(quoted):], " ")
		}
		fields[key], line = value, tail
	}
	return fields, nil
}
