package s3

import (
	"bytes"
	"encoding/xml"
	"errors"
	"net/http"
	"testing"
)

// FuzzConfigs: a document of a bucket is accepted or refused with an error of S3's, and what is accepted is XML.
func FuzzConfigs(f *testing.F) {
	for _, s := range []string{
		"<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule></CORSConfiguration>",
		"<LifecycleConfiguration><Rule><Status>Enabled</Status><Filter/><Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>",
		"<LifecycleConfiguration><Rule><Status>Enabled</Status><Filter/><Expiration><Date>9999-99-99</Date></Expiration></Rule></LifecycleConfiguration>",
		"<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>",
		"<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls></PublicAccessBlockConfiguration>",
		"<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>",
		"<a/>", "", "<CORSConfiguration>", "\xff",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		text, err := readXML(bytes.NewReader(text), maxItems)
		if err != nil || len(text) > maxDocument {
			return
		}
		for _, name := range []string{"cors", "lifecycle", "website", "encryption", "publicAccessBlock", "ownershipControls"} {
			c, _ := configOf(name)
			err := c.check(text)
			if known, ok := errors.AsType[*Error](err); err != nil && (!ok || known.Status != http.StatusBadRequest && known.Status != http.StatusNotImplemented) {
				t.Errorf("%s: %v", name, err)
			}
			var root struct{ XMLName xml.Name }
			if err == nil && xml.Unmarshal(text, &root) != nil {
				t.Errorf("%s accepts %q", name, text)
			}
		}
	})
}
