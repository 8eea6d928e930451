// Command minioput stores and reads objects with minio-go as a program in a VM does: it sets the
// endpoint alone, and gets its credentials from the VM's metadata.
//
//	minioput [-https] put BUCKET KEY FILE
//	minioput [-https] get BUCKET KEY
//	minioput [-https] flood BUCKET LOG   # stores objects 1, 2, 3, … with their number as content,
//	                                     # until it is ended; writes each stored number to LOG
//	minioput [-https] check BUCKET N     # reads 1 to N back
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "minioput:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("minioput", flag.ContinueOnError)
	https := flags.Bool("https", false, "use TLS")
	if err := flags.Parse(args); err != nil {
		return err
	}
	client, err := minio.New("s3.lodge.internal", &minio.Options{Creds: credentials.NewIAM(""), Secure: *https, Region: "us-east-1"})
	if err != nil {
		return err
	}
	if err := login(client); err != nil {
		return err
	}
	args = flags.Args()
	switch {
	case len(args) == 4 && args[0] == "put":
		_, err = client.FPutObject(ctx, args[1], args[2], args[3], minio.PutObjectOptions{})
		return err
	case len(args) == 3 && args[0] == "get":
		object, err := client.GetObject(ctx, args[1], args[2], minio.GetObjectOptions{})
		if err != nil {
			return err
		}
		_, err = io.Copy(stdout, object)
		return err
	case len(args) == 3 && args[0] == "flood":
		return flood(ctx, client, args[1], args[2])
	case len(args) == 3 && args[0] == "check":
		last, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return check(ctx, client, args[1], last, stdout)
	default:
		return errors.New("put BUCKET KEY FILE, get BUCKET KEY, flood BUCKET LOG or check BUCKET N")
	}
}

// login gets the credentials, with several attempts: minio-go waits one second for the metadata
// service, and has no setting for it. A VM may need longer while its host is busy.
func login(client *minio.Client) (err error) {
	for range 10 {
		if _, err = client.GetCreds(); err == nil {
			return nil
		}
		fmt.Fprintln(os.Stderr, "minioput: get credentials:", err)
		time.Sleep(time.Second)
	}
	return err
}

// flood stores one object after the other and repeats a failed one.
func flood(ctx context.Context, client *minio.Client, bucket, file string) error {
	log, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		for put(ctx, client, bucket, strconv.Itoa(n)) != nil {
			time.Sleep(100 * time.Millisecond) // the gateway is down
		}
		if _, err := fmt.Fprintln(log, n); err != nil {
			return err
		}
		if err := log.Sync(); err != nil {
			return err
		}
	}
}

// put stores the key as the object's content.
func put(ctx context.Context, client *minio.Client, bucket, key string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := client.PutObject(ctx, bucket, key, strings.NewReader(key), int64(len(key)), minio.PutObjectOptions{})
	return err
}

func check(ctx context.Context, client *minio.Client, bucket string, last int, stdout io.Writer) error {
	for n := 1; n <= last; n++ {
		object, err := client.GetObject(ctx, bucket, strconv.Itoa(n), minio.GetObjectOptions{})
		if err != nil {
			return fmt.Errorf("object %d: %w", n, err)
		}
		content, err := io.ReadAll(object)
		if err != nil || string(content) != strconv.Itoa(n) {
			return fmt.Errorf("object %d is %q, %w", n, content, err)
		}
	}
	_, err := fmt.Fprintf(stdout, "%d objects are complete\n", last)
	return err
}
