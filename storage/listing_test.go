package storage

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
)

// TestListings: what is listed, and which parameters come back, as S3 has it.
func TestListings(t *testing.T) {
	g := newHost(t).guest("blog")
	for _, key := range []string{"a", "a/", "a/b", "a/c/d", "b+c", "b d", "é", "//", ".."} {
		put(t, g.dummy(), "box", key, nil)
	}
	keys := func(body string) (all []string) {
		for part := range strings.SplitSeq(body, "<Contents><Key>") {
			if key, _, ok := strings.Cut(part, "</Key>"); ok {
				all = append(all, key)
			}
		}
		return all
	}
	for query, want := range map[string]string{
		"":                                    "[.. // a a/ a/b a/c/d b d b+c é]",
		"prefix=a/":                           "[a/ a/b a/c/d]",
		"delimiter=/":                         "[.. a b d b+c é]",
		"prefix=a/&delimiter=/":               "[a/ a/b]",
		"list-type=2&start-after=a/b":         "[a/c/d b d b+c é]",
		"marker=a/&max-keys=2":                "[a/b a/c/d]",
		"delimiter=/&marker=a/":               "[b d b+c é]",
		"max-keys=0":                          "[]",
		"encoding-type=url&prefix=b":          "[b%20d b%2Bc]",
		"prefix=none":                         "[]",
		"list-type=2&continuation-token=&x=y": "[.. // a a/ a/b a/c/d b d b+c é]",
	} {
		got := g.do(t, "GET", "/box?"+query, nil)
		if list := fmt.Sprint(keys(got.body)); got.status != 200 || list != want {
			t.Errorf("%s: %d %s, not %s", query, got.status, list, want)
		}
	}
	for query, texts := range map[string][]string{
		"prefix=&marker=&delimiter=":              {"<Prefix></Prefix>", "<Marker></Marker>", "<MaxKeys>1000</MaxKeys>", "<IsTruncated>false</IsTruncated>", "<Owner><ID>"},
		"list-type=2&start-after=&prefix=":        {"<StartAfter></StartAfter>", "<Prefix></Prefix>", "<KeyCount>9</KeyCount>"},
		"list-type=2&continuation-token=":         {"<ContinuationToken></ContinuationToken>"},
		"list-type=2&fetch-owner=true&max-keys=1": {"<DisplayName>blog</DisplayName>", "<NextContinuationToken>", "<IsTruncated>true</IsTruncated>", "<MaxKeys>1</MaxKeys>"},
		"delimiter=/&max-keys=2":                  {"<NextMarker>/</NextMarker>", "<CommonPrefixes><Prefix>/</Prefix></CommonPrefixes>"},
		"delimiter=%2B&encoding-type=url":         {"<Delimiter>%2B</Delimiter>", "<Prefix>b%2B</Prefix>", "<EncodingType>url</EncodingType>"},
		"versions&key-marker=a&max-keys=1":        {"<KeyMarker>a</KeyMarker>", "><Key>a/</Key><VersionId>null</VersionId><IsLatest>true</IsLatest>", "<NextKeyMarker>a/</NextKeyMarker>"},
	} {
		g.do(t, "GET", "/box?"+query, nil).want(t, query, 200, texts...)
	}
	for _, query := range []string{"max-keys=-1", "max-keys=x", "encoding-type=x", "list-type=1", "list-type=2&continuation-token=%21", "versions&version-id-marker=x"} {
		g.do(t, "GET", "/box?"+query, nil).want(t, query, 400, code("InvalidArgument"))
	}
	if got := g.do(t, "GET", "/box?list-type=2", nil); strings.Contains(got.body, "<Owner>") || strings.Contains(got.body, "<Delimiter>") || strings.Contains(got.body, "<Marker>") {
		t.Errorf("it tells more than it was asked: %s", got.body)
	}
	for _, query := range []string{"", "list-type=2", "versions"} {
		g.do(t, "GET", "/not-made?"+query, nil).want(t, "a bucket that does not exist", 200, "<IsTruncated>false")
	}
	own := g.minted()
	for o := range client(t, g.host.listen(noVM()), own.AccessKey, own.SecretKey).ListObjects(t.Context(), "not-made", minio.ListObjectsOptions{}) {
		wantCode(t, o.Err, "NoSuchBucket", 404) // outside the VM
	}
	g.do(t, "HEAD", "/not-made", nil).want(t, "it is not made", 404)
	g.do(t, "GET", "/Not_A_Name", nil).want(t, "a bad name", 400, code("InvalidBucketName"))
}

// TestPages walks a listing page by page, by each way to go on.
func TestPages(t *testing.T) {
	g := newHost(t).guest("blog")
	const n = 25
	for i := range n {
		put(t, g.dummy(), "box", fmt.Sprintf("k%02d/x", i), nil)
	}
	between := func(body, open string) string {
		_, rest, _ := strings.Cut(body, "<"+open+">")
		text, _, _ := strings.Cut(rest, "</"+open+">")
		return url.QueryEscape(text)
	}
	for first, next := range map[string]func(string) string{
		"list-type=2&max-keys=4":             func(body string) string { return "&continuation-token=" + between(body, "NextContinuationToken") },
		"list-type=2&max-keys=4&delimiter=/": func(body string) string { return "&continuation-token=" + between(body, "NextContinuationToken") },
		"max-keys=4&delimiter=/":             func(body string) string { return "&marker=" + between(body, "NextMarker") },
		"versions&max-keys=4": func(body string) string {
			return "&key-marker=" + between(body, "NextKeyMarker") + "&version-id-marker=" + between(body, "NextVersionIdMarker")
		},
	} {
		seen, query := 0, first
		for range n {
			got := g.do(t, "GET", "/box?"+query, nil)
			got.want(t, query, 200)
			seen += strings.Count(got.body, "<Key>k") + strings.Count(got.body, "<Prefix>k")
			if !strings.Contains(got.body, "<IsTruncated>true") {
				break
			}
			query = first + next(got.body)
		}
		if seen != n {
			t.Errorf("%s: %d of %d", first, seen, n)
		}
	}
}

func TestListBuckets(t *testing.T) {
	g := newHost(t).guest("blog")
	for i := range 5 {
		g.do(t, "PUT", fmt.Sprint("/bucket-", i), nil).want(t, "make", 200)
	}
	first := g.do(t, "GET", "/?max-buckets=2", nil)
	first.want(t, "first page", 200, "<Name>bucket-0</Name>", "<Name>bucket-1</Name>", "<ContinuationToken>")
	_, rest, _ := strings.Cut(first.body, "<ContinuationToken>")
	token, _, _ := strings.Cut(rest, "</ContinuationToken>")
	second := g.do(t, "GET", "/?max-buckets=9&continuation-token="+url.QueryEscape(token), nil)
	second.want(t, "second page", 200, "<Name>bucket-2</Name>", "<Name>bucket-4</Name>")
	if strings.Contains(second.body, "bucket-1") || strings.Contains(second.body, "ContinuationToken") {
		t.Errorf("second page: %s", second.body)
	}
	g.do(t, "GET", "/?prefix=bucket-3", nil).want(t, "prefix", 200, "<Name>bucket-3</Name>", "<Prefix>bucket-3</Prefix>")
	g.do(t, "GET", "/?max-buckets=0", nil).want(t, "none", 400, code("InvalidArgument"))
}
