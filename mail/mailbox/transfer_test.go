package mailbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// Copies and moves keep the message, its flags, keywords and date, whether its body is in the log or a file.
func TestTransfer(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	f := folders(t, s, vm)
	inbox, archive := f.Inbox(), folder(t, f, "Archive")
	large := strings.Repeat("large ", maxInlineBytes/5)
	mustPut(t, s, "one", vm)
	mustPut(t, s, large, vm)
	word, err := inbox.Keywords([]string{"$Label1"})
	gatewaytest.Must(t, err)
	_, err = archive.Keywords([]string{"other"})
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, inbox.SetFlags([]uint32{1, 2}, Flagged|word, 0))
	want := texts(t, inbox)
	done, err := inbox.Copy([]uint32{1, 2, 77}, archive)
	gatewaytest.Must(t, err)
	if !slices.Equal(done, []Transferred{{1, 1}, {2, 2}}) {
		t.Errorf("copied %v", done)
	}
	done, err = inbox.Move([]uint32{1, 2}, archive)
	gatewaytest.Must(t, err)
	if !slices.Equal(done, []Transferred{{1, 3}, {2, 4}}) || inbox.Snapshot().Entries.Len() != 0 {
		t.Errorf("moved %v", done)
	}
	_, err = archive.Move([]uint32{1, 2}, archive)
	gatewaytest.Must(t, err)
	s.Close()
	f = folders(t, open(t, dir), vm)
	archive = folder(t, f, "Archive")
	if got := texts(t, archive); !slices.Equal(got, append(want, want...)) {
		t.Errorf("%d messages: %.200q", len(got), got)
	}
	now := archive.Snapshot()
	for _, e := range now.Entries.All() {
		if e.Flags&settable != Flagged|now.Keyword("$label1") || time.Since(e.Received) > time.Hour {
			t.Errorf("%+v", e)
		}
	}
	if files := glob(filepath.Join(f.path(4), "big", "*")); len(files) != 2 || len(glob(filepath.Join(dir, vm.String(), "big", "*"))) != 0 {
		t.Errorf("files: %v", files)
	}
}

// A copy that cannot be made as a whole leaves nothing behind, and its error has the cause.
func TestCopyIsAllOrNothing(t *testing.T) {
	s := open(t, t.TempDir())
	vm := gateway.NewID()
	quota := int64(0)
	s.Obey(func(gateway.ID) gateway.MailSettings { return gateway.MailSettings{QuotaBytes: quota} })
	f := folders(t, s, vm)
	for range transferMessages + 10 {
		mustPut(t, s, strings.Repeat("x", 2000), vm)
	}
	var uids []uint32
	for _, e := range f.Inbox().Snapshot().Entries.All() {
		uids = append(uids, e.UID)
	}
	sent := folder(t, f, "Sent")
	quota = f.Inbox().Snapshot().bytes * 199 / 100 // the first batch fits
	if _, err := f.Inbox().Copy(uids, sent); !OverQuota(err) || sent.Snapshot().Entries.Len() != 0 {
		t.Errorf("%v, %d copied", err, sent.Snapshot().Entries.Len())
	}
	done, err := f.Inbox().Move(uids, sent)
	if err != nil || len(done) != len(uids) || sent.Snapshot().Entries.Len() != len(uids) {
		t.Errorf("%v, %d moved: the quota is as full as before", err, len(done))
	}
}

// The quota counts all folders, also those that nobody has opened since the start.
func TestQuotaCountsFolders(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	add(t, folder(t, folders(t, s, vm), "Archive"), strings.Repeat("x", 1000), 0)
	s.Close()
	s = open(t, dir)
	s.Obey(func(gateway.ID) gateway.MailSettings { return gateway.MailSettings{QuotaBytes: 1500} })
	if err := s.Fits(vm, 600); !OverQuota(err) {
		t.Errorf("600 more bytes: %v", err)
	}
	gatewaytest.Must(t, s.Fits(vm, 400))
	if _, err := tryAdd(folder(t, folders(t, s, vm), "Sent"), strings.Repeat("x", 600), 0); !OverQuota(err) {
		t.Errorf("APPEND: %v", err)
	}
	if _, err := put(s, strings.Repeat("x", 600), vm); !OverQuota(err) {
		t.Errorf("new mail: %v", err)
	}
	add(t, folder(t, folders(t, s, vm), "Sent"), strings.Repeat("x", 400), 0)
}

// What came by IMAP is not delivered into the guest, does not hide what is, and is kept by retention.
func TestLocalMessages(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	inbox := folders(t, s, vm).Inbox()
	add(t, inbox, "one", 0)
	if e, ok := inbox.Pending(); ok {
		t.Errorf("%+v is pending", e)
	}
	if _, err := os.Stat(filepath.Join(dir, vm.String(), "log")); err != nil {
		t.Error(err)
	}
	mustPut(t, s, "two", vm)
	add(t, inbox, "three", 0)
	add(t, inbox, "four", 0)
	if e, ok := inbox.Pending(); !ok || e.UID != 2 {
		t.Errorf("%+v is pending, want UID 2", e)
	}
	if e, ok := inbox.PendingAfter(2); ok {
		t.Errorf("%+v is pending behind it", e)
	}
	mustPut(t, s, "five", vm)
	if e, ok := inbox.PendingAfter(2); !ok || e.UID != 5 {
		t.Errorf("%+v is pending behind it, want UID 5", e)
	}
	gatewaytest.Must(t, inbox.Delivered(2))
	gatewaytest.Must(t, inbox.Delivered(5))
	if passed := inbox.Passed(2); len(passed) != 2 || passed[0].UID != 2 || passed[1].UID != 5 {
		t.Errorf("passed: %+v", passed)
	}
	add(t, inbox, "six", 0)
	list, err := inbox.List(1)
	gatewaytest.Must(t, err)
	if !list[0].Delivered || list[0].Subject != "subject" {
		t.Errorf("%+v", list[0])
	}
	gatewaytest.Must(t, inbox.expire(t.Context(), time.Now().Add(time.Hour)))
	if got := texts(t, inbox); !slices.Equal(got, []string{"one", "three", "four", "six"}) {
		t.Errorf("kept: %q", got)
	}
	s.Close()
	if !open(t, dir).quiet(vm) {
		t.Error("the mailbox is opened at each start")
	}
}
