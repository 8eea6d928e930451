package main

import (
	"fmt"
	"log/slog"
	"os"

	"lodge/gateway/issuer"
	"lodge/https/names"
)

// issuerURL is the issuer of the VMs' tokens. It is that of the public domain everywhere, in VMs too:
// relying parties compare it as a string.
func issuerURL(cfg Config) string { return names.Origin(cfg.Domain, cfg.HTTPSPort) }

// s3Name is the name of S3 for clients outside of VMs.
func s3Name(cfg Config) string { return "s3." + cfg.Domain }

func newIssuer(cfg Config, log *slog.Logger) (*issuer.Issuer, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("read the host's name: %w", err)
	}
	return issuer.New(issuer.Config{URL: issuerURL(cfg), Dir: cfg.path("issuer"), Host: host, Logger: log})
}
