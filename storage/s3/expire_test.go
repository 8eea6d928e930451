package s3

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/storage/store"
)

// TestExpire carries out lifecycle rules at days of the test's own.
func TestExpire(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now := start
	objects, err := store.Open(t.TempDir(), store.Config{Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
	gatewaytest.Must(t, err)
	t.Cleanup(func() { gatewaytest.Must(t, objects.Close()) })
	vm := gateway.NewID()
	h := &Handler{Store: objects, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }}
	put := func(bucket, name string, meta store.Meta) store.Object {
		t.Helper()
		o, err := objects.Put(t.Context(), store.Key{VM: vm, Bucket: bucket, Name: name}, store.Write{Body: strings.NewReader("12345"), Size: 5, Meta: meta})
		gatewaytest.Must(t, err)
		return o
	}
	rules := func(bucket, text string) {
		t.Helper()
		text = "<LifecycleConfiguration>" + text + "</LifecycleConfiguration>"
		gatewaytest.Must(t, checkLifecycle([]byte(text)))
		gatewaytest.Must(t, objects.ConfigureBucket(vm, bucket, func(b *store.Bucket) error {
			b.Config[lifecycleConfig] = []byte(text)
			return nil
		}))
	}
	at := func(days int, want map[string]string) {
		t.Helper()
		now = start.AddDate(0, 0, days)
		gatewaytest.Must(t, h.Expire(t.Context(), vm, now))
		for bucket, list := range want {
			page, err := objects.List(t.Context(), store.Query{VM: vm, Bucket: bucket, Max: 1000, Versions: true})
			gatewaytest.Must(t, err)
			var got []string
			for _, o := range page.Objects {
				name := o.Key.Name
				if o.Deleted {
					name += " marker"
				}
				got = append(got, name)
			}
			if fmt.Sprint(got) != list {
				t.Errorf("day %d, %s: %v instead of %s", days, bucket, got, list)
			}
		}
	}
	for _, name := range []string{"log/a", "log/b", "kept"} {
		put("plain", name, store.Meta{})
	}
	put("plain", "tagged", store.Meta{Tags: map[string]string{"end": "yes"}})
	rules("plain", `<Rule><Status>Enabled</Status><Filter><Prefix>log/</Prefix></Filter><Expiration><Days>3</Days></Expiration></Rule>`+
		`<Rule><Status>Enabled</Status><Filter><And><Prefix></Prefix><Tag><Key>end</Key><Value>yes</Value></Tag><ObjectSizeGreaterThan>4</ObjectSizeGreaterThan></And></Filter><Expiration><Date>2026-03-06T00:00:00Z</Date></Expiration></Rule>`+
		`<Rule><Status>Disabled</Status><Filter/><Expiration><Days>1</Days></Expiration></Rule>`)
	put("versions", "k", store.Meta{})
	gatewaytest.Must(t, objects.ConfigureBucket(vm, "versions", func(b *store.Bucket) error { b.Versioning = store.Enabled; return nil }))
	for range 3 {
		put("versions", "k", store.Meta{})
	}
	put("versions", "gone", store.Meta{})
	rules("versions", `<Rule><Status>Enabled</Status><Prefix>gone</Prefix><Expiration><Days>2</Days></Expiration></Rule>`+
		`<Rule><Status>Enabled</Status><Filter/><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>`+
		`<NoncurrentVersionExpiration><NoncurrentDays>3</NoncurrentDays><NewerNoncurrentVersions>1</NewerNoncurrentVersions></NoncurrentVersionExpiration></Rule>`)
	key := store.Key{VM: vm, Bucket: "uploads", Name: "k"}
	up, err := objects.NewUpload(key, store.UploadOptions{})
	gatewaytest.Must(t, err)
	rules("uploads", `<Rule><Status>Enabled</Status><Filter/><AbortIncompleteMultipartUpload><DaysAfterInitiation>2</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>`)

	at(1, map[string]string{"plain": "[kept log/a log/b tagged]", "versions": "[gone k k k k]"})
	_, err = objects.Upload(key, up.ID)
	gatewaytest.Must(t, err)
	at(3, map[string]string{"plain": "[kept log/a log/b tagged]", "versions": "[gone marker gone k k k k]"}) // 3 days end at the next midnight
	if _, err := objects.Upload(key, up.ID); err == nil {
		t.Error("the upload is left")
	}
	at(4, map[string]string{"plain": "[kept tagged]", "versions": "[gone marker gone k k]"})
	at(5, map[string]string{"plain": "[kept]"})
	at(9, map[string]string{"versions": "[gone marker gone k k]"}) // one older version is always kept
	at(9, map[string]string{"plain": "[kept]"})
}

// Rules of any number of days end nothing early.
func TestDue(t *testing.T) {
	from := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for days, want := range map[int]time.Time{
		1: time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC), 106_751: time.Date(2318, 6, 11, 0, 0, 0, 0, time.UTC), 106_752: time.Date(2318, 6, 12, 0, 0, 0, 0, time.UTC),
		999_999: time.Date(4764, 1, 27, 0, 0, 0, 0, time.UTC),
	} {
		if got := due(from, days); !got.Equal(want) {
			t.Errorf("%d days: %v instead of %v", days, got, want)
		}
	}
	for _, days := range []int{maxLifecycleDays, math.MaxInt} {
		if got := due(from, days); got.Year() < 1_000_000 {
			t.Errorf("%d days: %v", days, got)
		}
	}
}

func TestLifecycleRules(t *testing.T) {
	for name, text := range map[string]string{
		"no rule": "", "no status": "<Rule><Filter/><Expiration><Days>1</Days></Expiration></Rule>",
		"no action":          "<Rule><Status>Enabled</Status><Filter/></Rule>",
		"no days":            "<Rule><Status>Enabled</Status><Filter/><Expiration><Days>0</Days></Expiration></Rule>",
		"many days":          "<Rule><Status>Enabled</Status><Filter/><Expiration><Days>2147483648</Days></Expiration></Rule>",
		"two":                "<Rule><Status>Enabled</Status><Filter/><Expiration><Days>1</Days><Date>2026-01-01T00:00:00Z</Date></Expiration></Rule>",
		"noon":               "<Rule><Status>Enabled</Status><Filter/><Expiration><Date>2026-01-01T12:00:00Z</Date></Expiration></Rule>",
		"transition":         "<Rule><Status>Enabled</Status><Filter/><Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition></Rule>",
		"same id":            strings.Repeat("<Rule><ID>a</ID><Status>Enabled</Status><Filter/><Expiration><Days>1</Days></Expiration></Rule>", 2),
		"noncurrent":         "<Rule><Status>Enabled</Status><Filter/><NoncurrentVersionExpiration/></Rule>",
		"abort":              "<Rule><Status>Enabled</Status><Filter/><AbortIncompleteMultipartUpload/></Rule>",
		"prefix of a filter": "<Rule><Status>Enabled</Status><Filter><prefix>log/</prefix></Filter><Expiration><Days>1</Days></Expiration></Rule>",
		"prefix of and":      "<Rule><Status>Enabled</Status><Filter><And><prefix>log/</prefix><Tag><Key>a</Key><Value>b</Value></Tag></And></Filter><Expiration><Days>1</Days></Expiration></Rule>",
		"filter of a rule":   "<Rule><Status>Enabled</Status><filter><Prefix>log/</Prefix></filter><Expiration><Days>1</Days></Expiration></Rule>",
		"beside and":         "<Rule><Status>Enabled</Status><Filter><Prefix>log/</Prefix><And><Tag><Key>a</Key><Value>b</Value></Tag></And></Filter><Expiration><Days>1</Days></Expiration></Rule>",
		"size beside and":    "<Rule><Status>Enabled</Status><Filter><ObjectSizeLessThan>9</ObjectSizeLessThan><And><Prefix>log/</Prefix></And></Filter><Expiration><Days>1</Days></Expiration></Rule>",
		"empty and":          "<Rule><Status>Enabled</Status><Filter><And/></Filter><Expiration><Days>1</Days></Expiration></Rule>",
		"of an expiration":   "<Rule><Status>Enabled</Status><Filter/><Expiration><Days>1</Days><After>2</After></Expiration></Rule>",
		"of older versions":  "<Rule><Status>Enabled</Status><Filter/><NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays><newerNoncurrentVersions>5</newerNoncurrentVersions></NoncurrentVersionExpiration></Rule>",
	} {
		if checkLifecycle([]byte("<LifecycleConfiguration>"+text+"</LifecycleConfiguration>")) == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	whole := "<LifecycleConfiguration xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><Rule><ID>a</ID><Filter><And><Prefix>log/</Prefix><Tag><Key>a</Key><Value>b</Value></Tag></And></Filter><Status>Enabled</Status>" +
		"<Expiration><Days>1</Days></Expiration><NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>2</NewerNoncurrentVersions></NoncurrentVersionExpiration>" +
		"<AbortIncompleteMultipartUpload><DaysAfterInitiation>3</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>"
	if err := checkLifecycle([]byte(whole)); err != nil {
		t.Errorf("a rule with all that is known: %v", err)
	}
}

// FuzzPolicy: a policy that is accepted has an end, and permits no field that it does not name.
func FuzzPolicy(f *testing.F) {
	for _, s := range []string{
		`{"expiration": "2100-01-01T00:00:00Z", "conditions": [{"key": "a"}]}`, `{"expiration": "2100-01-01T00:00:00Z", "conditions": [["starts-with", "$key", ""], ["content-length-range", 1, 2]]}`,
		`{"expiration": 1, "conditions": {}}`, `[]`, `{"conditions": [[]]}`, `{"expiration": "2100-01-01T00:00:00Z", "conditions": [["content-length-range", -1, 1e300]]}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePolicy(b64(text))
		if err != nil {
			return
		}
		if p.expiration.IsZero() && !strings.Contains(text, "0001") || p.max >= 0 && (p.min < 0 || p.min > p.max) {
			t.Fatalf("%q gives %+v", text, p)
		}
		odd := "x-odd-field"
		named := slices.ContainsFunc(p.tests, func(c policyTest) bool { return c.field == odd })
		if p.check(map[string]string{odd: "v"}, time.Unix(0, 0)) == nil && !named {
			t.Fatalf("%q permits another field", text)
		}
	})
}

// FuzzForm: a form is read to its file, or refused, within its limits.
func FuzzForm(f *testing.F) {
	f.Add("--x\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nbody\r\n--x--\r\n")
	f.Add("--x--")
	f.Fuzz(func(t *testing.T, body string) {
		form, err := ReadForm(formRequest(body))
		if err != nil {
			return
		}
		size := 0
		for name, value := range form.Fields {
			size += len(name) + len(value)
		}
		if size > maxFormBytes || len(form.Fields) > maxFormFields {
			t.Fatalf("%d fields, %d bytes", len(form.Fields), size)
		}
		_, _ = io.Copy(io.Discard, form.file) // it may end early
	})
}
