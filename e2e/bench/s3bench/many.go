package main

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // S3's Content-MD5
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"
)

const pageKeys = 1000

// many measures a bucket of many objects: the start, pages, a walk, and the deletion of 1,000.
func many(ctx context.Context, b *bench) error {
	dir := filepath.Join(b.dir, "many")
	begun := time.Now()
	if err := fill(ctx, dir, b.objects); err != nil {
		return err
	}
	filled := time.Since(begun)
	s, err := b.startLodged(ctx, dir)
	if err != nil {
		return err
	}
	defer s.stop()
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.do("GET", "/"+bucket+"/"+manyKey(b.objects/2), "", noBody, "", io.Discard); err != nil {
		return err
	}
	started := time.Since(s.begun)
	resting, err := s.memory("VmRSS")
	if err != nil {
		return err
	}
	line(fmt.Sprintf("%d objects", b.objects), fmt.Sprintf("filled in %.0f s; start until the first GET: %.0f ms; RSS %.0f MiB", filled.Seconds(), ms(started), resting), "< 1000 ms")
	if err := walk(c, b.objects); err != nil {
		return err
	}
	return deleteMany(c)
}

// walk reads the whole bucket, page by page.
func walk(c *client, objects int) error {
	var page bytes.Buffer
	var took []time.Duration
	query, keys := "list-type=2", 0
	begun := time.Now()
	for {
		page.Reset()
		asked := time.Now()
		if err := c.do("GET", "/"+bucket, query, noBody, "", &page); err != nil {
			return err
		}
		took = append(took, time.Since(asked))
		keys += bytes.Count(page.Bytes(), []byte("<Key>"))
		_, rest, more := bytes.Cut(page.Bytes(), []byte("<NextContinuationToken>"))
		if !more {
			break
		}
		token, _, _ := bytes.Cut(rest, []byte("<"))
		query = "continuation-token=" + escape(token) + "&list-type=2"
	}
	all := time.Since(begun)
	if keys != objects {
		return fmt.Errorf("the walk found %d keys of %d", keys, objects)
	}
	first := took[0]
	line("pages of 1,000", fmt.Sprintf("first %.1f ms, median %.1f ms; walk: %.0f keys/s", ms(first), ms(middle(took)), float64(keys)/all.Seconds()),
		"≤ 10 ms, ≥ 100,000 keys/s")
	return nil
}

// escape encodes a token, which is base64, as it is signed.
func escape(token []byte) string {
	for from, to := range map[string]string{"+": "%2B", "/": "%2F", "=": "%3D"} {
		token = bytes.ReplaceAll(token, []byte(from), []byte(to))
	}
	return string(token)
}

// deleteMany deletes 1,000 objects by one request, three times.
func deleteMany(c *client) error {
	var took []time.Duration
	for n := range 3 {
		list := bytes.NewBufferString("<Delete><Quiet>true</Quiet>")
		for i := range pageKeys {
			fmt.Fprintf(list, "<Object><Key>%s</Key></Object>", manyKey(n*pageKeys+i))
		}
		list.WriteString("</Delete>")
		sum := md5.Sum(list.Bytes()) //nolint:gosec // as above
		var answer bytes.Buffer
		begun := time.Now()
		err := c.do("POST", "/"+bucket, "delete=", newBody(list.Bytes()), "Content-MD5: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n", &answer)
		if err != nil {
			return err
		}
		took = append(took, time.Since(begun))
		if bytes.Contains(answer.Bytes(), []byte("<Error>")) {
			return errors.New("objects were not deleted: " + answer.String())
		}
	}
	line("DELETE of 1,000", fmt.Sprintf("%.0f ms", ms(middle(took))), "≤ 200 ms")
	return nil
}
