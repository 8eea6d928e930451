package api_test

import (
	"fmt"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/api"
)

// A password is returned once, and what is kept of it is no password.
func TestMailPasswords(t *testing.T) {
	a, log := mailAPI(t)
	ada, _ := manager(t, a)
	directory := a.Directory
	made, err := ada.NewMailPassword(t.Context(), "blog", "phone")
	if err != nil || made.Label != "phone" || made.User != "blog" || !strings.HasPrefix(made.Host, "blog.") {
		t.Fatalf("%+v, %v", made, err)
	}
	m, _ := directory.ByName("blog")
	if found, ok := m.MailPassword(made.Password); !ok || found.Label != "phone" || strings.Contains(string(found.Hash), made.Password) {
		t.Errorf("kept: %+v", found)
	}
	if log.Count("event=mail.password.made") != 1 || strings.Contains(log.String(), made.Password) {
		t.Errorf("log: %s", log)
	}
	all, err := ada.MailPasswords(t.Context(), "blog")
	if err != nil || len(all) != 1 || all[0].Password != "" || all[0].Label != "phone" {
		t.Errorf("%+v, %v", all, err)
	}
	for label, kind := range map[string]gateway.Kind{"phone": gateway.KindTaken, "a/b": gateway.KindInvalid, "a\nb": gateway.KindInvalid, strings.Repeat("x", 65): gateway.KindInvalid} {
		if _, err := ada.NewMailPassword(t.Context(), "blog", label); gateway.KindOf(err) != kind || api.ErrorOf(err).Hint == "" {
			t.Errorf("%q: %v, want %s", label, err, kind)
		}
	}
	if err := ada.RemoveMailPassword(t.Context(), "blog", "phone"); err != nil {
		t.Fatal(err)
	}
	if err := ada.RemoveMailPassword(t.Context(), "blog", "phone"); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("removed twice: %v", err)
	}
	m, _ = directory.ByName("blog")
	if _, ok := m.MailPassword(made.Password); ok {
		t.Error("a password that was removed opens the mail")
	}
	for i := range gateway.MaxMailPasswords {
		made, err := ada.NewMailPassword(t.Context(), "blog", "")
		if err != nil || made.Label != fmt.Sprint("mail-", i+1) {
			t.Fatalf("%+v, %v", made, err)
		}
	}
	if _, err := ada.NewMailPassword(t.Context(), "blog", ""); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("one too many: %v", err)
	}
}
