package main

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"lodge/gateway/api"
	"lodge/gateway/gatewaytest"
)

// A link to an object of one VM opens inside another, at its gateway, as the user data of a recipe has it;
// and no longer when the keys of the first are revoked.
func TestRecipeLinksOpenInsideVMs(t *testing.T) {
	d := newLodged(t)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := d.objects.Run(ctx); err != nil {
			t.Errorf("run S3: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	owner := d.verbs.As(api.Owner())
	keys, err := owner.NewS3Key(t.Context(), "alpha", time.Hour)
	gatewaytest.Must(t, err)
	endpoint, err := url.Parse(keys.Endpoint)
	gatewaytest.Must(t, err)
	signer, err := minio.New(endpoint.Host, &minio.Options{
		Creds: credentials.NewStaticV4(keys.AccessKey, keys.SecretKey, ""), Secure: true, Region: keys.Region, BucketLookup: minio.BucketLookupPath,
	})
	gatewaytest.Must(t, err)
	put, err := signer.PresignedPutObject(t.Context(), "recipe", "large", time.Hour)
	gatewaytest.Must(t, err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, put.String(), strings.NewReader("content"))
	gatewaytest.Must(t, err)
	resp, err := d.stranger.Do(request)
	gatewaytest.Must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("upload: %s", resp.Status)
	}
	link, err := signer.PresignedGetObject(t.Context(), "recipe", "large", time.Hour, nil)
	gatewaytest.Must(t, err)
	guest := d.guestOf(t, "beta")
	for _, want := range []struct {
		status int
		body   string
	}{{http.StatusOK, "content"}, {http.StatusForbidden, "ExpiredToken"}} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, link.String(), nil)
		gatewaytest.Must(t, err)
		resp, err := guest.Do(request)
		gatewaytest.Must(t, err)
		body, err := io.ReadAll(resp.Body)
		gatewaytest.Must(t, err)
		resp.Body.Close()
		if resp.StatusCode != want.status || !strings.Contains(string(body), want.body) {
			t.Errorf("%s %s, want %d", resp.Status, body, want.status)
		}
		gatewaytest.Must(t, owner.RevokeS3Keys(t.Context(), "alpha"))
	}
}

// guestOf is a client in a VM, all of whose connections go to port 443 of its gateway.
func (d *lodged) guestOf(t *testing.T, vm string) *http.Client {
	t.Helper()
	tap, err := listenTCP(t.Context(), nil, "", netip.MustParseAddrPort("127.0.0.1:0"))
	gatewaytest.Must(t, err)
	go d.web.Serve(gatewaytest.Listener(tap, d.vms[vm].Identity)) // ends with the daemon
	guest := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: d.stranger.Transport.(*http.Transport).TLSClientConfig.RootCAs, MinVersion: tls.VersionTLS12}, //nolint:forcetypeassert // see newLodged
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", tap.Addr().String())
		},
	}}
	t.Cleanup(guest.CloseIdleConnections)
	return guest
}
