package s3

import (
	"bytes"
	"crypto/md5" // S3's digest of a key
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"lodge/storage/store"
)

// Server-side encryption: with a key of the host (SSE-S3), by the header or the default of the bucket,
// and with a key in each request (SSE-C). S3 accepts SSE-C over TLS alone. Here it is accepted on every
// listener: the taps and the host's own address are no network that others are on, and what comes from
// elsewhere comes over TLS.

const (
	sseHeader      = "X-Amz-Server-Side-Encryption"
	customerHeader = "X-Amz-Server-Side-Encryption-Customer-"
	sourceHeader   = "X-Amz-Copy-Source-Server-Side-Encryption-Customer-"
	kmsHeader      = "X-Amz-Server-Side-Encryption-Aws-Kms-"
	contextHeader  = "X-Amz-Server-Side-Encryption-Context"

	aes256           = "AES256"
	encryptionConfig = "encryption"
)

// aspects are the sub-resources of an object whose requests have no body that could be encrypted.
func aspects() []string { return []string{"acl", "tagging", "retention", "legal-hold", "uploads"} }

// encryptionHeaders are those that a request may have. That of bucket keys is about KMS alone, and without
// effect in S3 too.
func encryptionHeaders() []string {
	all := []string{sseHeader, sseHeader + "-Bucket-Key-Enabled"}
	for _, name := range []string{"Algorithm", "Key", "Key-Md5"} {
		all = append(all, customerHeader+name, sourceHeader+name)
	}
	return all
}

// refuseEncryption refuses the headers of encryption where they have no effect, and KMS everywhere.
func (c *call) refuseEncryption(name string) error {
	if strings.HasPrefix(name, kmsHeader) || name == contextHeader || name == sseHeader && strings.HasPrefix(c.r.Header.Get(name), "aws:") {
		return errKMS()
	}
	lonely := strings.HasPrefix(name, sourceHeader) && c.r.Header.Get("X-Amz-Copy-Source") == ""
	if lonely || !slices.Contains(encryptionHeaders(), name) {
		return invalidArgument("The header %s has no effect in this request.", strings.ToLower(name))
	}
	aspect := slices.ContainsFunc(aspects(), c.query.Has) && (c.r.Method != http.MethodPost || !c.query.Has("uploads"))
	if c.Key == "" || aspect || c.r.Method == http.MethodDelete {
		return invalidArgument("The header %s has no effect in this request.", strings.ToLower(name))
	}
	reads := c.r.Method == http.MethodGet || c.r.Method == http.MethodHead
	if name == sseHeader && (reads || c.query.Has("uploadId")) {
		return invalidArgument("x-amz-server-side-encryption header is not supported for this operation.")
	}
	return nil
}

func errKMS() error {
	return notImplemented("Encryption with keys of KMS (aws:kms) is not implemented. Use AES256, for a key of the host, or a key of your own (SSE-C).")
}

// customerKey reads the key in the headers with a prefix; nil without any. S3 has the same conditions.
func customerKey(h http.Header, prefix string) ([]byte, error) {
	kind, text, digest := h.Get(prefix+"Algorithm"), h.Get(prefix+"Key"), h.Get(prefix+"Key-Md5")
	switch {
	case kind == "" && text == "" && digest == "":
		return nil, nil
	case kind == "":
		return nil, invalidArgument("Requests specifying Server Side Encryption with Customer provided keys must provide a valid encryption algorithm.")
	case kind != aes256:
		return nil, badRequest("InvalidEncryptionAlgorithmError", "The encryption request you specified is not valid. The valid value is AES256.")
	case text == "":
		return nil, invalidArgument("Requests specifying Server Side Encryption with Customer provided keys must provide an appropriate secret key.")
	case digest == "":
		return nil, invalidArgument("Requests specifying Server Side Encryption with Customer provided keys must provide the client calculated MD5 of the secret key.")
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) != sealKeyBytes {
		return nil, invalidArgument("The secret key was invalid for the specified algorithm.")
	}
	sum := md5.Sum(key) // S3's digest of a key
	if want, err := base64.StdEncoding.DecodeString(digest); err != nil || !bytes.Equal(want, sum[:]) {
		return nil, invalidArgument("The calculated MD5 hash of the key did not match the hash that was provided.")
	}
	return key, nil
}

// sealing makes the secret of a new object by the headers of the request, else by the default of its
// bucket. nil is none.
func (c *call) sealing() (*secret, error) {
	customer, err := customerKey(c.r.Header, customerHeader)
	if err != nil {
		return nil, err
	}
	kind := c.r.Header.Get(sseHeader)
	switch {
	case customer != nil && kind != "":
		return nil, invalidArgument("Server Side Encryption with Customer provided key is incompatible with the encryption method specified")
	case customer != nil:
		return newSecret(sealedByCustomer, customer)
	case kind != "" && kind != aes256:
		return nil, invalidArgument("The encryption method specified is not supported")
	case kind == "":
		b, err := c.bucket()
		if errors.Is(err, store.ErrNoBucket) || err == nil && b.Config[encryptionConfig] == nil {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return c.hostSecret()
}

// hostSecret makes the secret of an object with the host's key. From the first on nothing starts without
// that key.
func (c *call) hostSecret() (*secret, error) {
	if err := c.Store.SetSealID(SealID(c.SealKey)); err != nil {
		return nil, err
	}
	return newSecret(sealedByHost, c.SealKey[:])
}

// opening is the key of what has a record of sealing; nil if that is empty. The request must have the
// customer's key under prefix if that was used, and none else.
func (c *call) opening(record []byte, prefix string) (*secret, error) {
	customer, err := customerKey(c.r.Header, prefix)
	switch {
	case err != nil:
		return nil, err
	case len(record) == 0 || record[0] != sealedByCustomer:
		if customer != nil {
			return nil, invalidRequest("The encryption parameters are not applicable to this object.")
		}
		if len(record) == 0 {
			return nil, nil
		}
		s, err := openSecret(record, c.SealKey[:])
		if err != nil {
			return nil, fmt.Errorf("open sealed object: %w", err)
		}
		return s, nil
	case customer == nil:
		return nil, invalidRequest("The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object.")
	}
	s, err := openSecret(record, customer)
	if errors.Is(err, errSeal) {
		return nil, denied("The key is not the one that the object was encrypted with.")
	}
	return s, err
}

// completesWithKey reports whether the request has the upload's customer key. It needs none, but a wrong
// one is refused.
func (c *call) completesWithKey() (bool, error) {
	key, err := customerKey(c.r.Header, customerHeader)
	if key == nil || err != nil {
		return false, err
	}
	up, err := c.upload()
	if err == nil {
		_, err = c.opening(up.Meta.Sealed, customerHeader)
	}
	return err == nil, err
}

// setSealed sets the headers about the encryption of an object with a record. If it is a customer's,
// the request has had the key.
func (c *call) setSealed(record []byte) {
	switch {
	case len(record) == 0:
	case record[0] == sealedByHost:
		c.set("x-amz-server-side-encryption", aes256)
	default:
		c.set("x-amz-server-side-encryption-customer-algorithm", aes256)
		c.set("x-amz-server-side-encryption-customer-key-md5", c.r.Header.Get(customerHeader+"Key-Md5"))
	}
}

// recordOf is what the record of an object has of its secret.
func (s *secret) recordOf() []byte {
	if s == nil {
		return nil
	}
	return s.record
}

type encryptionXML struct {
	XMLName xml.Name            `xml:"ServerSideEncryptionConfiguration"`
	Rules   []encryptionRuleXML `xml:"Rule"`
}

type encryptionRuleXML struct {
	Default struct {
		SSEAlgorithm   string
		KMSMasterKeyID string
	} `xml:"ApplyServerSideEncryptionByDefault"`
	BucketKeyEnabled bool
	Blocked          *struct{} `xml:"BlockedEncryptionTypes"`
}

// checkEncryption accepts a default of AES256.
func checkEncryption(text []byte) error {
	var conf encryptionXML
	if xml.Unmarshal(text, &conf) != nil || len(conf.Rules) != 1 {
		return errXML("The XML is no ServerSideEncryptionConfiguration with one rule.")
	}
	rule := conf.Rules[0]
	switch kind := rule.Default.SSEAlgorithm; {
	case strings.HasPrefix(kind, "aws:"):
		return errKMS()
	case kind != aes256:
		return errXML("The SSEAlgorithm of a bucket is AES256.")
	case rule.Default.KMSMasterKeyID != "":
		return invalidArgument("a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse")
	case rule.Blocked != nil:
		return notImplemented("BlockedEncryptionTypes is not implemented.")
	}
	return nil
}
