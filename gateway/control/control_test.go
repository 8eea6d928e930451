package control_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/control"
	"lodge/gateway/control/controltest"
)

func start(t *testing.T) (*controltest.Host, *control.Client) {
	t.Helper()
	h := controltest.Start(t)
	return h, control.NewClient(h.Socket)
}

func ignore(gateway.Progress) {}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestNewStreamsProgressAndThenTheVM(t *testing.T) {
	_, c := start(t)
	var phases []string
	info := must(c.New(t.Context(), gateway.Spec{Name: "hello", UserData: "#!/bin/sh\n"}, func(p gateway.Progress) {
		phases = append(phases, p.Phase+" "+p.Text)
	}))(t)
	want := []string{"disk copying debian-13", "disk copying debian-13", "define with 10 bytes of user data"}
	if diff := cmp.Diff(want, phases); diff != "" {
		t.Error(diff)
	}
	if info.URL != "https://hello.lodge.localhost" || info.MailDomain != "hello.lodge.localhost" || info.State != "running" {
		t.Errorf("wrong VM: %+v", info)
	}
}

func TestErrorsArriveAsTheyWere(t *testing.T) {
	h, c := start(t)
	h.Add(t, "hello")
	tests := []struct {
		name string
		call func() error
		want gateway.Kind
		hint string
	}{
		{"taken", func() error { _, err := c.New(t.Context(), gateway.Spec{Name: "hello"}, ignore); return err }, gateway.KindTaken, "lodge rm hello"},
		{"bad name", func() error { _, err := c.New(t.Context(), gateway.Spec{Name: "s3"}, ignore); return err }, gateway.KindInvalid, "my-s3"},
		{"unknown VM", func() error { _, err := c.Show(t.Context(), "nobody"); return err }, gateway.KindNotFound, "lodge ls"},
		{"path instead of a name", func() error { return c.Remove(t.Context(), "../vms") }, gateway.KindInvalid, "lower-case"},
		{"empty name", func() error { return c.Remove(t.Context(), "") }, gateway.KindInvalid, "lower-case"},
		{"unknown template", func() error { return c.RemoveTemplate(t.Context(), "a/../b") }, gateway.KindNotFound, "lodge image ls"},
		{"template that is a path", func() error { return c.RemoveTemplate(t.Context(), "..") }, gateway.KindNotFound, "lodge image ls"},
		{"image as a template", func() error { return c.RemoveTemplate(t.Context(), "debian-13") }, gateway.KindInvalid, "lodge image ls"},
		{"unknown message", func() error { _, err := c.Message(t.Context(), "hello", "a/../b"); return err }, gateway.KindNotFound, ""},
		{"message that is a path", func() error { _, err := c.Message(t.Context(), "hello", ".."); return err }, gateway.KindInvalid, "lodge mail hello"},
		{"limit", func() error { _, err := c.Mail(t.Context(), "hello", 0); return err }, gateway.KindInvalid, "1 to"},
		{"visibility", func() error {
			_, err := c.Share(t.Context(), "hello", api.Sharing{Share: api.Share{Visibility: "some"}})
			return err
		}, gateway.KindInvalid, "private, public"},
		{"condition", func() error { _, err := c.Wait(t.Context(), "hello", "boot", ignore); return err }, gateway.KindInvalid, "http"},
		{"user data that fits in no request", func() error {
			_, err := c.New(t.Context(), gateway.Spec{Name: "big", UserData: strings.Repeat("\x01", gateway.MaxUserDataBytes+64<<10)}, ignore)
			return err
		}, gateway.KindInvalid, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := test.call()
			e, ok := errors.AsType[*gateway.Error](err)
			if !ok || e.Kind != test.want || !strings.Contains(e.Hint, test.hint) {
				t.Errorf("got %#v, want kind %s and a hint with %q", err, test.want, test.hint)
			}
		})
	}
}

func TestErrorAfterProgressIsTheLastLine(t *testing.T) {
	h, c := start(t)
	h.Fill()
	steps := 0
	_, err := c.New(t.Context(), gateway.Spec{Name: "hello"}, func(gateway.Progress) { steps++ })
	if steps != 2 || gateway.KindOf(err) != gateway.KindNoSpace {
		t.Errorf("%d steps, then %v", steps, err)
	}
	if all := must(c.List(t.Context()))(t); len(all) != 0 {
		t.Errorf("left behind: %v", all)
	}
}

func TestLifecycle(t *testing.T) {
	h, c := start(t)
	h.Add(t, "hello")
	if v := must(c.Stop(t.Context(), "hello", false))(t); v.State != "stopped" {
		t.Errorf("stopped: %s", v.State)
	}
	if _, err := c.SSH(t.Context(), "hello"); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("ssh to a stopped VM: %v", err)
	}
	if v := must(c.Start(t.Context(), "hello"))(t); v.State != "running" {
		t.Errorf("started: %s", v.State)
	}
	if v := must(c.Restart(t.Context(), "hello"))(t); v.State != "running" {
		t.Errorf("restarted: %s", v.State)
	}
	if err := c.Remove(t.Context(), "hello"); err != nil {
		t.Error(err)
	}
	if err := c.Remove(t.Context(), "hello"); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("removed twice: %v", err)
	}
}

func TestShareOpensExactlyOnePort(t *testing.T) {
	h, c := start(t)
	id := h.Add(t, "hello").ID
	v := must(c.Share(t.Context(), "hello", api.Sharing{Share: api.Share{Port: 8080, Visibility: gateway.Public}}))(t)
	m, _ := h.Directory.ByID(id)
	if v.URL != "https://8080-hello.lodge.localhost" || m.Visibility(8080) != gateway.Public || m.Visibility(gateway.DefaultPort) != gateway.Private {
		t.Errorf("url %s, shares %v", v.URL, m.Shares)
	}
	must(c.Share(t.Context(), "hello", api.Sharing{Share: api.Share{Port: 8080, Visibility: gateway.Private}}))(t)
	if m, _ = h.Directory.ByID(id); len(m.Shares) != 0 {
		t.Errorf("shares %v", m.Shares)
	}
}

func TestSettings(t *testing.T) {
	h, c := start(t)
	id := h.Add(t, "hello").ID
	if v := must(c.Show(t.Context(), "hello"))(t); v.WakeOnRequest {
		t.Error("a new VM is woken by requests")
	}
	for _, want := range []bool{true, true, false} {
		v := must(c.Set(t.Context(), "hello", api.Settings{WakeOnRequest: &want}))(t)
		if m, _ := h.Directory.ByID(id); v.WakeOnRequest != want || m.WakeOnRequest != want {
			t.Errorf("set %t: shown %t, recorded %t", want, v.WakeOnRequest, m.WakeOnRequest)
		}
	}
	if _, err := c.Set(t.Context(), "hello", api.Settings{}); gateway.KindOf(err) != gateway.KindInvalid {
		t.Errorf("no setting: %v", err)
	}
}

func TestMail(t *testing.T) {
	h, c := start(t)
	hello, other := h.Add(t, "hello"), h.Add(t, "other")
	h.Receive(hello.ID, controltest.Mail{Message: gateway.Message{QueueID: "1", Subject: "hi"}, Raw: "Subject: hi\r\n\r\n\xff"})
	if all := must(c.Mail(t.Context(), "hello", 10))(t); len(all) != 1 || all[0].Subject != "hi" {
		t.Errorf("listed %v", all)
	}
	if all := must(c.Mail(t.Context(), "other", 10))(t); all == nil || len(all) != 0 {
		t.Errorf("%s has %v", other.Name, all)
	}
	r := must(c.Message(t.Context(), "hello", "1"))(t)
	defer r.Close()
	if raw := must(io.ReadAll(r))(t); string(raw) != "Subject: hi\r\n\r\n\xff" {
		t.Errorf("message %q", raw)
	}
	if _, err := c.Message(t.Context(), "other", "1"); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("another's message: %v", err)
	}
	h.Receive(gateway.Postmaster().ID, controltest.Mail{Message: gateway.Message{QueueID: "2", Subject: "abuse"}})
	if all := must(c.Mail(t.Context(), "postmaster", 10))(t); len(all) != 1 || all[0].Subject != "abuse" {
		t.Errorf("the operator has %v", all)
	}
	if _, err := c.RemoveMail(t.Context(), "hello", gateway.MailRemoval{All: true}); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("mail that waits: %v", err)
	}
	if removed := must(c.RemoveMail(t.Context(), "hello", gateway.MailRemoval{All: true, Waiting: true}))(t); removed.Messages != 1 || removed.Waiting != 1 {
		t.Errorf("removed %+v", removed)
	}
	if removed := must(c.RemoveMail(t.Context(), "postmaster", gateway.MailRemoval{QueueIDs: []string{"2"}}))(t); removed.Messages != 1 || removed.Waiting != 0 {
		t.Errorf("removed %+v of the operator", removed)
	}
}

func TestCredentialsAreTheVMs(t *testing.T) {
	h, c := start(t)
	m := h.Add(t, "hello")
	keys := must(c.Credentials(t.Context(), "hello"))(t)
	key, err := h.Keyring.Check(keys.AccessKey, keys.Expires.Add(-1))
	if err != nil || key != (gateway.S3Key{VM: m.Identity, Secret: keys.SecretKey}) {
		t.Errorf("%v of %s", err, key.VM.Name)
	}
}

func TestHealthAndRoot(t *testing.T) {
	h, c := start(t)
	want := api.Health{Version: "v0.0.0-test", Domain: "lodge.localhost", Ready: true}
	if diff := cmp.Diff(want, must(c.Health(t.Context()))(t)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(h.RootPEM(), must(c.RootPEM(t.Context()))(t)); diff != "" {
		t.Error(diff)
	}
}

func TestWaitForHTTP(t *testing.T) {
	h, c := start(t)
	h.Add(t, "hello")
	var phases []string
	must(c.Wait(t.Context(), "hello", api.HTTP, func(p gateway.Progress) {
		phases = append(phases, p.Phase)
		if p.Text == "waiting for something to listen" {
			if p.Elapsed.Seconds() < 40 {
				t.Errorf("time does not go on from where the guest was: %v", p.Elapsed)
			}
			h.Listen()
		}
	}))(t)
	if diff := cmp.Diff([]string{"kernel", "ssh", "http", "http"}, phases); diff != "" {
		t.Error(diff)
	}
}

func TestWaitEndsWithTheVM(t *testing.T) {
	h, c := start(t)
	m := h.Add(t, "hello")
	_, err := c.Wait(t.Context(), "hello", api.HTTP, func(p gateway.Progress) {
		if p.Phase == "http" {
			if err := h.Stop(t.Context(), m.ID, true); err != nil {
				t.Error(err)
			}
		}
	})
	if gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("got %v", err)
	}
}

func TestConsole(t *testing.T) {
	h, c := start(t)
	h.Add(t, "hello")
	stream := must(c.Console(t.Context(), "hello"))(t)
	buf := make([]byte, 100)
	n := must(io.ReadFull(stream, buf[:7]))(t)
	if string(buf[:n]) != "login: " {
		t.Errorf("greeted by %q", buf[:n])
	}
	must(stream.Write([]byte("root")))(t)
	must(io.ReadFull(stream, buf[:4]))(t)
	if string(buf[:4]) != "ROOT" {
		t.Errorf("answered %q", buf[:4])
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
}

func TestFollowedLogIsNotHeldBack(t *testing.T) {
	h, c := start(t)
	h.Add(t, "hello")
	ctx, cancel := context.WithCancel(t.Context())
	r := must(c.Log(ctx, "hello", true))(t)
	defer r.Close()
	buf := make([]byte, 18)
	must(io.ReadFull(r, buf))(t)
	cancel()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestNotRunning(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "lodged.sock")
	l := must(net.ListenUnix("unix", &net.UnixAddr{Name: gone + "2", Net: "unix"}))(t)
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, socket := range []string{gone, gone + "2"} {
		_, err := control.NewClient(socket).List(t.Context())
		e, _ := errors.AsType[*gateway.Error](err)
		if !errors.Is(err, control.ErrNotRunning) || e.Kind != gateway.KindUnavailable || !strings.Contains(e.Hint, "systemctl start lodged") {
			t.Errorf("got %#v", err)
		}
	}
}

func TestNoSecretsInTheLog(t *testing.T) {
	h, c := start(t)
	h.Add(t, "hello")
	url := must(c.Login(t.Context(), "hello", ""))(t)
	keys := must(c.Credentials(t.Context(), "hello"))(t)
	if !strings.Contains(url, controltest.LoginSecret) {
		t.Errorf("no secret in %s", url)
	}
	log := h.Logs.String()
	if !strings.Contains(log, "POST /v1/vms/{name}/login") || !strings.Contains(log, "vm=hello") {
		t.Errorf("not logged: %s", log)
	}
	for _, secret := range []string{controltest.LoginSecret, keys.SecretKey, keys.AccessKey} {
		if strings.Contains(log, secret) {
			t.Errorf("%s is in the log", secret)
		}
	}
}

func TestListenTwice(t *testing.T) {
	h, _ := start(t)
	if _, err := control.Listen(t.Context(), h.Socket); gateway.KindOf(err) != gateway.KindTaken {
		t.Errorf("listened twice: %v", err)
	}
}

func TestSocketOfAKilledDaemonIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "lodged.sock")
	for range 2 {
		l := must(control.Listen(t.Context(), path))(t)
		if err := l.Close(); err != nil { // it leaves the socket, as kill -9 does
			t.Fatal(err)
		}
	}
}
