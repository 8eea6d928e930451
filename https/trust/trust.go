// Package trust installs the host's root certificate in the stores of trusted certificates, and
// removes it: the system's store (Debian), and the NSS databases of Chromium and Firefox in home
// directories.
//
// Both operations are idempotent. They never write to a home directory as root, and never change
// other certificates. The root is limited to the host's own domain (see package ca).
package trust

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"lodge/gateway"
)

// Stores locates the stores. The zero value is a Debian system without home directories.
type Stores struct {
	Homes     []string // home directories with browsers; NSS tools run as each directory's owner
	SystemDir string   // default /usr/local/share/ca-certificates
	Update    []string // command to run after a change in SystemDir; default update-ca-certificates
}

// Result is the outcome for one store.
type Result struct {
	Store   string `json:"store"`          // such as "system" or "Chromium of /home/ann"
	Changed bool   `json:"changed"`        // false: no change was needed, or none was possible (see Hint)
	Hint    string `json:"hint,omitempty"` // what to do, if no change was possible
}

// Install adds root, a PEM certificate, to every store. A failure at one store does not stop the
// others; the error joins all failures.
func (s Stores) Install(ctx context.Context, root []byte) ([]Result, error) {
	return s.each(ctx, root, true)
}

// Uninstall removes root from every store, like Install.
func (s Stores) Uninstall(ctx context.Context, root []byte) ([]Result, error) {
	return s.each(ctx, root, false)
}

func (s Stores) each(ctx context.Context, rootPEM []byte, install bool) ([]Result, error) {
	r, err := readRoot(rootPEM)
	if err != nil {
		return nil, err
	}
	var results []Result
	var errs []error
	note := func(store string, changed bool, hint string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", store, err))
			return
		}
		results = append(results, Result{store, changed, hint})
	}
	changed, hint, err := s.system(ctx, r, install)
	note("system", changed, hint, err)
	certutil, err := exec.LookPath("certutil")
	for _, db := range s.databases(install) {
		if err != nil {
			note(db.name, false, "certutil is missing: apt-get install libnss3-tools, then run lodge trust again", nil)
			continue
		}
		changed, err := db.apply(ctx, certutil, r, install)
		note(db.name, changed, "", err)
	}
	return results, errors.Join(errs...)
}

// root is the certificate and its name in the stores, which differs for each host.
type root struct {
	pem  []byte
	der  []byte
	name string
}

func readRoot(content []byte) (root, error) {
	block, _ := pem.Decode(content)
	if block == nil || block.Type != "CERTIFICATE" {
		return root{}, gateway.Invalid("not a PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return root{}, gateway.Invalid("not a certificate").Because(err)
	}
	if !cert.IsCA {
		return root{}, gateway.Invalid("not a root certificate: %s", cert.Subject)
	}
	sum := sha256.Sum256(cert.Raw)
	return root{pem: pem.EncodeToMemory(block), der: cert.Raw, name: "lodge-" + hex.EncodeToString(sum[:6])}, nil
}

// system installs the root in Debian's store, or removes it.
func (s Stores) system(ctx context.Context, r root, install bool) (changed bool, hint string, err error) {
	dir, update := s.SystemDir, s.Update
	if dir == "" {
		dir = "/usr/local/share/ca-certificates"
	}
	if len(update) == 0 {
		update = []string{"update-ca-certificates"}
	}
	if _, err := exec.LookPath(update[0]); err != nil {
		return false, update[0] + " is missing: apt-get install ca-certificates, then run lodge trust again", nil //nolint:nilerr // the hint explains it
	}
	file := filepath.Join(dir, r.name+".crt")
	have, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, "", err
	}
	switch {
	case install && !bytes.Equal(have, r.pem):
		err = errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(file, r.pem, 0o644)) //nolint:gosec // for everyone to read
	case !install && have != nil:
		err = os.Remove(file)
	default:
		return false, "", nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return false, "changing the system's store requires root: run lodge trust with sudo", nil
	}
	if err != nil {
		return false, "", err
	}
	if out, err := exec.CommandContext(ctx, update[0], update[1:]...).CombinedOutput(); err != nil { //nolint:gosec // the default, or the caller's
		return false, "", fmt.Errorf("run %s: %w: %s", update[0], err, bytes.TrimSpace(out))
	}
	return true, "", nil
}

// database is one NSS database, a directory with cert9.db.
type database struct {
	name string
	dir  string
	home string // whose owner runs certutil
}

// databases returns the existing databases. Chromium makes its own at the first start; to install,
// apply makes it earlier.
func (s Stores) databases(install bool) []database {
	var all []database
	for _, home := range s.Homes {
		chromium := filepath.Join(home, ".pki/nssdb")
		if _, err := os.Stat(chromium); err == nil || install {
			all = append(all, database{"Chromium of " + home, chromium, home})
		}
		for _, pattern := range []string{
			"snap/chromium/current/.pki/nssdb", ".mozilla/firefox/*", "snap/firefox/common/.mozilla/firefox/*",
			".var/app/org.mozilla.firefox/.mozilla/firefox/*",
		} {
			name := "Firefox"
			if strings.Contains(pattern, "chromium") {
				name = "Chromium"
			}
			// the patterns are well formed
			found, _ := filepath.Glob(filepath.Join(home, pattern, "cert9.db"))
			for _, file := range found {
				all = append(all, database{name + " of " + home, filepath.Dir(file), home})
			}
		}
	}
	return all
}

// apply installs the root in the database, or removes it.
func (d database) apply(ctx context.Context, certutil string, r root, install bool) (changed bool, err error) {
	run := func(stdin []byte, args ...string) ([]byte, error) { return d.run(ctx, stdin, certutil, args...) }
	if _, err := os.Stat(filepath.Join(d.dir, "cert9.db")); errors.Is(err, fs.ErrNotExist) {
		if !install {
			return false, nil
		}
		if _, err := d.run(ctx, nil, "mkdir", "-p", "-m", "700", d.dir); err != nil {
			return false, err
		}
		if _, err := run(nil, "-N", "--empty-password"); err != nil {
			return false, err
		}
	}
	have, err := run(nil, "-L", "-n", r.name, "-r")
	present := err == nil && bytes.Equal(have, r.der) // an error: no certificate has that name
	switch {
	case install && !present:
		_, err = run(r.pem, "-A", "-n", r.name, "-t", "C,,")
	case !install && present:
		_, err = run(nil, "-D", "-n", r.name)
	default:
		return false, nil
	}
	return err == nil, err
}

// run runs a command as the owner of the home directory: root must not follow links that the owner
// may have made.
func (d database) run(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	if filepath.Base(name) == "certutil" {
		args = append(args, "-d", "sql:"+d.dir)
	}
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // the arguments are constants and paths
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Dir = "/"
	info, err := os.Stat(d.home)
	if err != nil {
		return nil, err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 && owner.Uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w: %s", filepath.Base(name), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
