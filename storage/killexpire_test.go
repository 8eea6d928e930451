package storage

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/lifecycle"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// expiringID is the VM of TestKill whose bucket "log" has versions, of which a lifecycle rule removes those below old/.
var expiringID = gateway.ID{6, 6, 6, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}

// expireAlways carries out the rules of that VM as of next week, again and again: all that may expire does.
func (s *Server) expireAlways(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.protocol.Expire(ctx, expiringID, time.Now().Add(7*24*time.Hour)); err != nil && ctx.Err() == nil {
			panic(err) // the server ends, and TestKill with it
		}
	}
}

// versionLog has each version that was acknowledged, and the MD5 of each body that was sent for a name.
type versionLog struct {
	mu   sync.Mutex
	kept []keptVersion
	sent map[string]map[string]bool // by name below old/
	gone map[string]bool            // names below old/ that were seen to have expired; none is written again
	next int
}

type keptVersion struct{ name, id, sum string }

func newVersionLog() *versionLog {
	return &versionLog{sent: map[string]map[string]bool{}, gone: map[string]bool{}}
}

// prepare makes the bucket and its rule.
func (l *versionLog) prepare(t *testing.T, c *minio.Client) {
	t.Helper()
	gatewaytest.Must(t, c.MakeBucket(t.Context(), "log", minio.MakeBucketOptions{}))
	gatewaytest.Must(t, c.EnableVersioning(t.Context(), "log"))
	rule := lifecycle.Rule{
		ID: "old", Status: "Enabled", RuleFilter: lifecycle.Filter{Prefix: "old/"},
		Expiration:                     lifecycle.Expiration{Days: 1},
		NoncurrentVersionExpiration:    lifecycle.NoncurrentVersionExpiration{NoncurrentDays: 1},
		AbortIncompleteMultipartUpload: lifecycle.AbortIncompleteMultipartUpload{DaysAfterInitiation: 1},
	}
	gatewaytest.Must(t, c.SetBucketLifecycle(t.Context(), "log", &lifecycle.Configuration{Rules: []lifecycle.Rule{rule}}))
}

// write stores versions that stay, and objects that expire, until the server is gone.
func (l *versionLog) write(ctx context.Context, c *minio.Client) {
	for ctx.Err() == nil {
		data := random(1 + rand.IntN(100_000))
		digest := md5.Sum(data)
		sum := hex.EncodeToString(digest[:])
		l.mu.Lock()
		l.next++
		kept, old := fmt.Sprintf("keep/%d", l.next%5), fmt.Sprintf("old/%d", l.next)
		l.sent[old] = map[string]bool{sum: true}
		l.mu.Unlock()
		if _, err := c.PutObject(ctx, "log", old, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{}); err != nil {
			return
		}
		info, err := c.PutObject(ctx, "log", kept, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{})
		if err != nil {
			return
		}
		l.mu.Lock()
		l.kept = append(l.kept, keptVersion{kept, info.VersionID, sum})
		l.mu.Unlock()
	}
}

// check compares the bucket: each version that was acknowledged is there, or the latest 200 of them; what is left below old/
// is complete; and what had expired is not back.
func (l *versionLog) check(t *testing.T, c *minio.Client) {
	t.Helper()
	for _, v := range l.kept[max(0, len(l.kept)-200):] {
		if sum, err := sumOf(t, c, v.name, v.id); err != nil || sum != v.sum {
			t.Errorf("version %s of %s: %s, want %s, %v", v.id, v.name, sum, v.sum, err)
		}
	}
	left := map[string]bool{}
	for o := range c.ListObjects(t.Context(), "log", minio.ListObjectsOptions{Prefix: "old/", Recursive: true}) {
		gatewaytest.Must(t, o.Err)
		left[o.Key] = true
		sum, err := sumOf(t, c, o.Key, "")
		if minio.ToErrorResponse(err).Code == "NoSuchKey" {
			continue // it has just expired
		}
		if err != nil || !l.sent[o.Key][sum] {
			t.Errorf("%s is torn: %s, %v", o.Key, sum, err)
		}
		if l.gone[o.Key] {
			t.Errorf("%s is back", o.Key)
		}
	}
	for name := range l.sent {
		if !left[name] {
			l.gone[name] = true
		}
	}
}

func sumOf(t *testing.T, c *minio.Client, name, id string) (string, error) {
	t.Helper()
	o, err := c.GetObject(t.Context(), "log", name, minio.GetObjectOptions{VersionID: id})
	if err != nil {
		return "", err
	}
	h := md5.New()
	_, err = io.Copy(h, o)
	return hex.EncodeToString(h.Sum(nil)), err
}
