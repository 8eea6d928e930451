package s3

import (
	"encoding/xml"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"lodge/gateway"
)

const (
	corsConfig      = "cors"
	maxCORSRules    = 100
	maxAskedHeaders = 100 // of one preflight
)

// corsXML is the document with the origins whose pages may use a bucket in a browser.
type corsXML struct {
	XMLName xml.Name   `xml:"CORSConfiguration"`
	Rules   []corsRule `xml:"CORSRule"`
}

type corsRule struct {
	Origins []string `xml:"AllowedOrigin"`
	Methods []string `xml:"AllowedMethod"`
	Headers []string `xml:"AllowedHeader"`
	Expose  []string `xml:"ExposeHeader"`
	MaxAge  *int     `xml:"MaxAgeSeconds"`
}

func checkCORS(text []byte) error {
	var conf corsXML
	if xml.Unmarshal(text, &conf) != nil || len(conf.Rules) == 0 || len(conf.Rules) > maxCORSRules {
		return errXML("The XML is no CORSConfiguration with 1 to %d rules.", maxCORSRules)
	}
	for _, r := range conf.Rules {
		if len(r.Origins) == 0 || len(r.Methods) == 0 {
			return errXML("A CORSRule has at least one AllowedOrigin and one AllowedMethod.")
		}
		for _, m := range r.Methods {
			if !slices.Contains([]string{"GET", "PUT", "POST", "DELETE", "HEAD"}, m) {
				return invalidRequest("Found unsupported HTTP method in CORS config. Unsupported method is %.40s", m)
			}
		}
		for _, pattern := range slices.Concat(r.Origins, r.Headers) {
			if strings.Count(pattern, "*") > 1 {
				return invalidRequest("AllowedOrigin %q can not have more than one wildcard.", pattern)
			}
		}
		if slices.ContainsFunc(r.Expose, func(h string) bool { return strings.Contains(h, "*") }) {
			return invalidRequest("ExposeHeader contains wildcard. We currently do not support wildcard for ExposeHeader.")
		}
	}
	return nil
}

// matches reports whether a pattern with at most one * matches a text.
func matches(pattern, text string) bool {
	before, after, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == text
	}
	return len(text) >= len(before)+len(after) && strings.HasPrefix(text, before) && strings.HasSuffix(text, after)
}

// allows reports whether the rule permits a page of origin a method with these headers, in lower case.
func (r corsRule) allows(origin, method string, headers []string) bool {
	if !slices.Contains(r.Methods, method) || !slices.ContainsFunc(r.Origins, func(p string) bool { return matches(p, origin) }) {
		return false
	}
	if len(headers) == 0 {
		return true
	}
	patterns := make([]string, len(r.Headers))
	for i, p := range r.Headers {
		patterns[i] = strings.ToLower(p)
	}
	for _, h := range headers {
		if !slices.ContainsFunc(patterns, func(p string) bool { return matches(p, h) }) {
			return false
		}
	}
	return true
}

// set sets the headers by which a browser lets a page of origin have the answer.
func (r corsRule) set(h http.Header, origin string) {
	if slices.Contains(r.Origins, "*") {
		h.Set("Access-Control-Allow-Origin", "*")
	} else {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	h.Set("Access-Control-Allow-Methods", strings.Join(r.Methods, ", "))
	if len(r.Expose) > 0 {
		h.Set("Access-Control-Expose-Headers", strings.Join(r.Expose, ", "))
	}
	if r.MaxAge != nil {
		h.Set("Access-Control-Max-Age", strconv.Itoa(*r.MaxAge))
	}
	h.Set("Vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method")
}

// corsRule finds the first rule of the bucket for a page.
func (h *Handler) corsRule(vm gateway.ID, bucket, origin, method string, headers []string) (_ corsRule, found bool, err error) {
	b, err := h.Store.Bucket(vm, bucket)
	if err != nil {
		return corsRule{}, false, err
	}
	var conf corsXML
	if text, ok := b.Config[corsConfig]; !ok || xml.Unmarshal(text, &conf) != nil {
		return corsRule{}, false, nil
	}
	for _, r := range conf.Rules {
		if r.allows(origin, method, headers) {
			return r, true, nil
		}
	}
	return corsRule{}, false, nil
}

// cross sets the headers of an answer to a page of another origin, errors included.
func (c *call) cross() {
	origin := c.r.Header.Get("Origin")
	if origin == "" || c.Bucket == "" {
		return
	}
	if rule, ok, err := c.corsRule(c.VM.ID, c.Bucket, origin, c.r.Method, nil); err == nil && ok {
		rule.set(c.w.Header(), origin)
	}
}

// Preflight answers OPTIONS, by which a browser asks whether a page of another origin may send a
// request. It is not signed, and its answer has nothing but the bucket's rule.
func (h *Handler) Preflight(w http.ResponseWriter, r *http.Request, who Caller, t Target) error {
	origin, method := r.Header.Get("Origin"), r.Header.Get("Access-Control-Request-Method")
	if origin == "" || method == "" {
		return badRequest("BadRequest", "Insufficient information. Origin request header needed.")
	}
	var headers []string
	for name := range strings.SplitSeq(r.Header.Get("Access-Control-Request-Headers"), ",") {
		if name = strings.TrimSpace(name); name != "" {
			headers = append(headers, strings.ToLower(name))
		}
	}
	if len(headers) > maxAskedHeaders {
		return badRequest("BadRequest", "Access-Control-Request-Headers has %d names; at most %d are possible.", len(headers), maxAskedHeaders)
	}
	refused := Errorf(http.StatusForbidden, "AccessForbidden", "CORSResponse: This CORS request is not allowed.")
	if t.Bucket == "" {
		return refused
	}
	rule, ok, err := h.corsRule(who.VM.ID, t.Bucket, origin, method, headers)
	if err != nil {
		return err
	}
	if !ok {
		return refused
	}
	rule.set(w.Header(), origin)
	if len(headers) > 0 {
		w.Header().Set("Access-Control-Allow-Headers", strings.Join(headers, ", "))
	}
	return nil // 200
}
