package storage

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/storage/s3"
)

// as carries out a request of a caller.
func (h *host) as(t *testing.T, who s3.Caller, method, path, body string) reply {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	w := httptest.NewRecorder()
	target, err := s3.ParseTarget(r)
	gatewaytest.Must(t, err)
	if err := h.protocol.Serve(w, r, who, target); err != nil {
		s3.WriteError(w, r, target, err)
	}
	return reply{w.Code, w.Body.String(), w.Header()}
}

// Who may not reach the ports of a VM does not aim the host's requests at them, whatever a policy allows.
func TestNotificationsFromOutside(t *testing.T) {
	h, _ := newHostOfEvents(t, t.TempDir())
	g, shop := h.guest("blog"), h.guest("shop")
	put(t, g.dummy(), "box", "x", nil)
	g.doBody(t, "PUT", "/box?policy", policyOf(`{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": ["arn:aws:s3:::box", "arn:aws:s3:::box/*"]}`)).want(t, "policy", 204)
	g.grant(t, "box", shop, gateway.WriteBucket)
	text := notifyText(hook, "", "")
	o := h.outside(noVM())
	outside := func(name string, sign func(*http.Request)) {
		t.Helper()
		o.send(t, "PUT", "http://"+name+".lodge.localhost/?notification", sign).want(t, "outside at "+name, 403, code("AccessDenied"))
	}
	outside("box.blog.s3", nil)
	outside("box.blog.s3", signed(t, g.forOutside(t)))
	shop.doBody(t, "PUT", "/blog_box?notification", text).want(t, "by a grant", 403, code("AccessDenied"))
	for name, who := range map[string]s3.Caller{
		"with a key for outside": {VM: g.Identity}, "without a signature": {VM: g.Identity, Inside: true, Anonymous: true},
		"by a grant": {VM: g.Identity, Inside: true, Granted: gateway.WriteBucket},
	} {
		h.as(t, who, "PUT", "/box?notification", text).want(t, name, 403, code("AccessDenied"))
	}
	g.do(t, "GET", "/box?notification", nil).want(t, "nothing is set", 200, "<NotificationConfiguration")
	if got := g.do(t, "GET", "/box?notification", nil); strings.Contains(got.body, "Queue") {
		t.Errorf("it is set: %s", got.body)
	}
	for name, who := range map[string]s3.Caller{"inside": {VM: g.Identity, Inside: true}, "the host": {VM: g.Identity, Host: true}} {
		h.as(t, who, "PUT", "/box?notification", text).want(t, name, 200)
	}
	host := guest{Identity: g.Identity, host: h, url: h.hostDoor()}
	if err := host.keyed().RemoveAllBucketNotification(t.Context(), "box"); err != nil {
		t.Errorf("at the host's door: %v", err)
	}
}
