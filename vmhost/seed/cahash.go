package seed

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // OpenSSL's choice for a file name, not for security
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"strings"

	"lodge/gateway"
)

// caLink names the link under which OpenSSL looks a certificate up in a directory, such as
// "1a2b3c4d.0": X509_NAME_hash(3). The guest could ask openssl(1) at its first boot, which takes a
// second under TCG.
func caLink(rootPEM []byte) (string, error) {
	block, _ := pem.Decode(rootPEM)
	if block == nil {
		return "", gateway.Invalid("the root certificate is not in PEM form")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("read root certificate: %w", err)
	}
	name, err := canonicalName(cert.RawSubject)
	if err != nil {
		return "", fmt.Errorf("read root certificate: %w", err)
	}
	sum := sha1.Sum(name) //nolint:gosec // as above
	return fmt.Sprintf("%08x.0", binary.LittleEndian.Uint32(sum[:])), nil
}

// canonicalName is a name as OpenSSL hashes it: without the outer SEQUENCE, each value a UTF8String
// with its ASCII letters in lower case, without spaces at its ends and with single ones inside.
func canonicalName(raw []byte) ([]byte, error) {
	type attribute struct {
		Type  asn1.ObjectIdentifier
		Value string
	}
	type canonical struct {
		Type  asn1.ObjectIdentifier
		Value string `asn1:"utf8"`
	}
	var parts []asn1.RawValue
	if _, err := asn1.Unmarshal(raw, &parts); err != nil {
		return nil, fmt.Errorf("parse name: %w", err)
	}
	var out bytes.Buffer
	for _, part := range parts {
		var set []attribute
		if _, err := asn1.UnmarshalWithParams(part.FullBytes, &set, "set"); err != nil {
			return nil, fmt.Errorf("parse name: %w", err)
		}
		var same []canonical
		for _, a := range set {
			same = append(same, canonical{a.Type, strings.Map(lower, strings.Join(strings.Fields(a.Value), " "))})
		}
		der, err := asn1.MarshalWithParams(same, "set")
		if err != nil {
			return nil, fmt.Errorf("write name: %w", err)
		}
		out.Write(der)
	}
	return out.Bytes(), nil
}

func lower(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		return r + 'a' - 'A'
	}
	return r
}
