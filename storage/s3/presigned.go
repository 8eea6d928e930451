package s3

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// unpresigned returns a presigned request as its signer means it: with the x-amz-* parameters of its
// query as headers, where SDKs move them from. Other requests it returns as they are.
func unpresigned(r *http.Request, query url.Values) (*http.Request, error) {
	if !query.Has("X-Amz-Signature") {
		return r, nil
	}
	signed := r.WithContext(r.Context())
	signed.Header = r.Header.Clone()
	for name, values := range query {
		lower := strings.ToLower(name)
		if !strings.HasPrefix(lower, "x-amz-") || ofSignature(lower) || ofBody(lower) {
			continue
		}
		if strings.HasPrefix(lower, strings.ToLower(customerHeader)) || strings.HasPrefix(lower, strings.ToLower(sourceHeader)) {
			return nil, invalidArgument("The parameter %.80q of the URL must be a header: a key would be in logs and histories.", name)
		}
		if !httpguts.ValidHeaderFieldName(name) || slices.ContainsFunc(values, func(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }) {
			return nil, invalidArgument("The parameter %.60q of the URL cannot be a header.", name)
		}
		if had := signed.Header.Values(name); len(had) > 0 && !slices.Equal(had, values) {
			return nil, invalidArgument("The request has %.60s more than once, with different values.", lower)
		}
		signed.Header[http.CanonicalHeaderKey(name)] = values
	}
	return signed, nil
}

// ofSignature reports whether a parameter belongs to the signature itself.
func ofSignature(lower string) bool {
	return slices.Contains([]string{
		"x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-signedheaders", "x-amz-signature", "x-amz-security-token",
	}, lower)
}

// ofBody reports whether a parameter is the checksum of a body. They have no effect: SDKs compute them when they presign,
// of an empty body.
func ofBody(lower string) bool {
	name, ok := strings.CutPrefix(lower, "x-amz-checksum-")
	return lower == "x-amz-sdk-checksum-algorithm" || ok && !slices.Contains([]string{"algorithm", "type", "mode"}, name)
}
