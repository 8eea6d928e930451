package s3

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// requirement is one condition of a statement: a key of the request, and the values that it is compared with.
type requirement struct {
	operator string // without IfExists
	key      string // in lower case, but for the name of a tag
	values   []string
	ifExists bool
	compare  func(want, got string) (same, ok bool)
}

// narrow reports whether a requirement lets only few addresses pass. Like in S3, ranges larger than /8 of IPv4
// and /32 of IPv6 are everyone.
func (t requirement) narrow() bool {
	return t.operator == "IpAddress" && !t.ifExists && !slices.ContainsFunc(t.values, func(v string) bool {
		net, err := netip.ParsePrefix(v)
		return err == nil && (net.Bits() < 8 || net.Addr().Is6() && net.Bits() < 32)
	})
}

// conditionKeys are the keys that a request has here, by where the value is.
func conditionKeys() []string {
	return []string{
		"aws:securetransport", "aws:sourceip", "aws:useragent", "aws:referer", "s3:prefix", "s3:delimiter", "s3:max-keys", "s3:versionid",
		"s3:x-amz-acl", "s3:x-amz-content-sha256", "s3:x-amz-copy-source", "s3:x-amz-metadata-directive", "s3:x-amz-server-side-encryption",
		"s3:x-amz-server-side-encryption-customer-algorithm", "s3:x-amz-storage-class", "s3:x-amz-website-redirect-location",
	}
}

const requestTag = "s3:requestobjecttag/"

func parseConditions(all map[string]map[string]json.RawMessage) (tests []requirement, _ error) {
	for operator, keys := range all {
		name, ifExists := strings.CutSuffix(operator, "IfExists")
		compare, ok := conditionOperators()[name]
		if !ok {
			return nil, errBucketPolicy("Policy has an invalid condition operator: " + strconv.Quote(operator))
		}
		for key, raw := range keys {
			t := requirement{operator: name, key: strings.ToLower(key), ifExists: ifExists, compare: compare}
			if tag := len(requestTag); strings.HasPrefix(t.key, requestTag) {
				t.key = requestTag + key[tag:]
			} else if !slices.Contains(conditionKeys(), t.key) {
				return nil, errBucketPolicy("Policy has an invalid condition key: " + strconv.Quote(key))
			}
			values, ok := conditionValues(raw)
			if !ok || len(values) == 0 {
				return nil, errBucketPolicy("Policy has an invalid condition value")
			}
			for _, v := range values {
				if _, ok := compare(v, ""); !ok {
					return nil, errBucketPolicy("Policy has an invalid condition value: " + strconv.Quote(v))
				}
			}
			t.values = values
			tests = append(tests, t)
		}
	}
	return tests, nil
}

// conditionValues reads one value or a list: texts, numbers, and truths.
func conditionValues(raw json.RawMessage) (values []string, ok bool) {
	var list []any
	if json.Unmarshal(raw, &list) != nil {
		list = make([]any, 1)
		if json.Unmarshal(raw, &list[0]) != nil {
			return nil, false
		}
	}
	for _, v := range list {
		switch v := v.(type) {
		case string:
			values = append(values, v)
		case bool:
			values = append(values, strconv.FormatBool(v))
		case float64:
			values = append(values, strconv.FormatFloat(v, 'f', -1, 64))
		default:
			return nil, false
		}
	}
	return values, true
}

// conditionOperators compare a value of the policy with that of a request. ok is false if the policy's is
// malformed.
func conditionOperators() map[string]func(want, got string) (same, ok bool) {
	equal := func(want, got string) (bool, bool) { return want == got, true }
	fold := func(want, got string) (bool, bool) { return strings.EqualFold(want, got), true }
	like := func(want, got string) (bool, bool) { return wild(want, got), true }
	truth := func(want, got string) (bool, bool) {
		w, err := strconv.ParseBool(want)
		g, bad := strconv.ParseBool(got)
		return bad == nil && w == g, err == nil
	}
	address := func(want, got string) (bool, bool) {
		net, err := netip.ParsePrefix(want)
		if err != nil {
			one, err := netip.ParseAddr(want)
			return err == nil && one.String() == got, err == nil
		}
		ip, bad := netip.ParseAddr(got)
		return bad == nil && net.Contains(ip.Unmap()), true
	}
	number := func(holds func(got, want float64) bool) func(string, string) (bool, bool) {
		return func(want, got string) (bool, bool) {
			w, err := strconv.ParseFloat(want, 64)
			g, bad := strconv.ParseFloat(got, 64)
			return bad == nil && holds(g, w), err == nil
		}
	}
	return map[string]func(string, string) (bool, bool){
		"StringEquals": equal, "StringNotEquals": equal, "StringEqualsIgnoreCase": fold, "StringNotEqualsIgnoreCase": fold,
		"StringLike": like, "StringNotLike": like, "Bool": truth, "Null": truth, "IpAddress": address, "NotIpAddress": address,
		"NumericEquals":         number(func(g, w float64) bool { return g == w }),
		"NumericLessThan":       number(func(g, w float64) bool { return g < w }),
		"NumericLessThanEquals": number(func(g, w float64) bool { return g <= w }),
		"NumericGreaterThan":    number(func(g, w float64) bool { return g > w }),
	}
}

// holds reports whether all conditions hold for the request.
func (c *call) holds(tests []requirement) bool {
	for _, t := range tests {
		got, has := c.conditionValue(t.key)
		negative := strings.Contains(t.operator, "Not")
		var same bool
		if t.operator == "Null" {
			got, has = strconv.FormatBool(!has), true
		}
		switch {
		case has:
			same = slices.ContainsFunc(t.values, func(want string) bool {
				same, _ := t.compare(want, got)
				return same
			})
		case t.ifExists, negative:
			same = !negative // it holds
		}
		if same == negative {
			return false
		}
	}
	return true
}

// conditionValue is what the request has for a key.
func (c *call) conditionValue(key string) (string, bool) {
	switch key {
	case "aws:securetransport":
		return strconv.FormatBool(c.r.TLS != nil), true
	case "aws:sourceip":
		from, err := netip.ParseAddrPort(c.r.RemoteAddr)
		return from.Addr().Unmap().String(), err == nil
	case "aws:useragent", "aws:referer":
		v, ok := c.r.Header[map[string]string{"aws:useragent": "User-Agent", "aws:referer": "Referer"}[key]]
		return strings.Join(v, ","), ok
	case "s3:prefix", "s3:delimiter", "s3:max-keys":
		return c.query.Get(key[len("s3:"):]), c.query.Has(key[len("s3:"):])
	case "s3:versionid":
		return c.query.Get("versionId"), c.query.Has("versionId")
	}
	if tag, ok := strings.CutPrefix(key, requestTag); ok {
		tags, err := url.ParseQuery(c.r.Header.Get("X-Amz-Tagging"))
		return tags.Get(tag), err == nil && tags.Has(tag)
	}
	name := strings.TrimPrefix(key, "s3:")
	v := c.r.Header.Get(name)
	return v, v != ""
}
