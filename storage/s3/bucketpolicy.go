package s3

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
)

// The policy of a bucket: what S3 calls a bucket policy, in JSON. What has no effect here is refused when
// it is set, and never ignored.

const (
	policyConfig   = "policy"
	maxPolicyBytes = 20 << 10 // as S3
	maxStatements  = 200
	anyOwner       = "" // of a policy that was set before: a fork of a VM has the policies that name the other one
	bucketARN      = "arn:aws:s3:::"
)

// statement is one of a policy, as it is parsed and checked.
type statement struct {
	allow      bool
	everyone   bool // or else the owner
	actions    patterns
	resources  patterns // without bucketARN
	conditions []requirement
}

// patterns are texts with * and ?, or all but those.
type patterns struct {
	list []string
	not  bool
}

func (p patterns) match(text string) bool {
	return slices.ContainsFunc(p.list, func(pattern string) bool { return wild(pattern, text) }) != p.not
}

// texts is a JSON text, or a list of them.
type texts []string

// UnmarshalJSON implements json.Unmarshaler.
func (t *texts) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(t))
}

type statementJSON struct {
	Sid, Effect  string
	Principal    json.RawMessage
	NotPrincipal json.RawMessage
	Action       texts
	NotAction    texts
	Resource     texts
	NotResource  texts
	Condition    map[string]map[string]json.RawMessage
}

func errBucketPolicy(why string) error { return badRequest("MalformedPolicy", "%s", why) }

// parseBucketPolicy parses and checks the policy of a bucket that has an owner.
func parseBucketPolicy(text []byte, bucket, owner string) ([]statement, error) {
	if len(text) > maxPolicyBytes {
		return nil, errBucketPolicy("Policy exceeds the maximum allowed document size: it has at most 20 KiB.")
	}
	var doc struct {
		Version, ID string
		Statement   json.RawMessage
	}
	if err := strictJSON(text, &doc); err != nil {
		return nil, errBucketPolicy("This policy contains invalid Json")
	}
	if doc.Version != "" && doc.Version != "2012-10-17" && doc.Version != "2008-10-17" {
		return nil, errBucketPolicy("The policy must contain a valid version string")
	}
	list := []statementJSON{{}}
	if err := strictJSON(doc.Statement, &list); err != nil {
		if err := strictJSON(doc.Statement, &list[0]); err != nil {
			return nil, errBucketPolicy("Syntax errors in policy: its Statement is missing, or has an element that is not possible here")
		}
		list = list[:1]
	}
	if len(list) == 0 || len(list) > maxStatements {
		return nil, errBucketPolicy("Could not parse the policy: Statement is empty or too long!")
	}
	statements, known := make([]statement, len(list)), policyActions()
	for i := range list {
		var err error
		if statements[i], err = list[i].parse(bucket, owner, known); err != nil {
			return nil, err
		}
	}
	return statements, checkPatterns(statements)
}

// checkPatterns refuses what would take long to match.
func checkPatterns(policy []statement) error {
	total := 0
	for _, s := range policy {
		all := slices.Concat(s.actions.list, s.resources.list)
		for _, t := range s.conditions {
			all = append(all, t.values...)
		}
		for _, pattern := range all {
			n, ok := unclear(pattern)
			if total += n; !ok || total > maxUnclear {
				return errBucketPolicy("The policy has too many patterns with a ? between two *, or a long one: there are at most 8, of 64 bytes each")
			}
		}
	}
	return nil
}

// strictJSON decodes one value, with nothing behind it and no element that v has not.
func strictJSON(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind the value")
	}
	return nil
}

func (j *statementJSON) parse(bucket, owner string, known []string) (s statement, err error) {
	switch {
	case j.Effect != "Allow" && j.Effect != "Deny":
		return s, errBucketPolicy("Invalid effect: " + j.Effect)
	case len(j.NotPrincipal) > 0:
		return s, errBucketPolicy("NotPrincipal is not possible here: name the Principal")
	case (len(j.Action) == 0) == (len(j.NotAction) == 0):
		return s, errBucketPolicy("Missing required field Action")
	case (len(j.Resource) == 0) == (len(j.NotResource) == 0):
		return s, errBucketPolicy("Missing required field Resource")
	}
	s.allow = j.Effect == "Allow"
	if s.everyone, err = parsePrincipal(j.Principal, owner); err != nil {
		return s, err
	}
	s.actions = patterns{slices.Concat(j.Action, j.NotAction), len(j.NotAction) > 0}
	for _, a := range s.actions.list {
		if !slices.ContainsFunc(known, func(name string) bool { return wild(a, name) }) {
			return s, errBucketPolicy("Policy has invalid action")
		}
	}
	for _, r := range slices.Concat(j.Resource, j.NotResource) {
		path, ok := strings.CutPrefix(r, bucketARN)
		if name, _, _ := strings.Cut(path, "/"); !ok || name != bucket {
			return s, errBucketPolicy("Policy has invalid resource")
		}
		s.resources.list = append(s.resources.list, path)
	}
	s.resources.not = len(j.NotResource) > 0
	s.conditions, err = parseConditions(j.Condition)
	return s, err
}

// parsePrincipal reports whether a statement is about everyone, or about the owner. There are no others.
func parsePrincipal(raw json.RawMessage, owner string) (everyone bool, _ error) {
	var names texts
	if json.Unmarshal(raw, &names) != nil {
		var byKind map[string]texts
		if json.Unmarshal(raw, &byKind) != nil || len(byKind) != 1 {
			return false, errBucketPolicy("Invalid principal in policy")
		}
		names = slices.Concat(byKind["AWS"], byKind["CanonicalUser"])
	} else if len(names) != 1 || names[0] != "*" {
		return false, errBucketPolicy("Invalid principal in policy")
	}
	for _, name := range names {
		if owner != anyOwner && name != "*" && name != owner && name != "arn:aws:iam::"+owner+":root" {
			return false, errBucketPolicy("Invalid principal in policy: it is *, or the VM that has the bucket (" + owner + ")")
		}
	}
	if len(names) == 0 {
		return false, errBucketPolicy("Invalid principal in policy")
	}
	return slices.Contains(names, "*"), nil
}

// public reports whether the policy lets everyone do something from everywhere.
func public(policy []statement) bool {
	return slices.ContainsFunc(policy, func(s statement) bool {
		return s.allow && s.everyone && !slices.ContainsFunc(s.conditions, requirement.narrow)
	})
}

func putPolicy(c *call) error {
	text, err := c.document(maxDocument, func(r io.Reader) ([]byte, error) {
		text, err := io.ReadAll(io.LimitReader(r, maxPolicyBytes+1))
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		return text, err
	})
	if err != nil {
		return err
	}
	b, err := c.bucket()
	if err != nil {
		return err
	}
	policy, err := parseBucketPolicy(text, c.Bucket, c.VM.ID.String())
	if err != nil {
		return err
	}
	if public(policy) && accessBlockOf(b).BlockPublicPolicy {
		return denied("The policy is public, and the bucket's BlockPublicPolicy setting prevents public policies.")
	}
	if err := c.configure(policyConfig, text); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// getPolicyStatus answers whether a bucket's policy is public.
func getPolicyStatus(c *call) error {
	b, err := c.bucket()
	if err != nil {
		return err
	}
	text, ok := b.Config[policyConfig]
	if !ok {
		return Errorf(http.StatusNotFound, "NoSuchBucketPolicy", "The bucket policy does not exist")
	}
	policy, err := c.policies.parse(text, c.Bucket)
	if err != nil {
		return err
	}
	status := "<IsPublic>FALSE</IsPublic>"
	if public(policy) {
		status = "<IsPublic>TRUE</IsPublic>"
	}
	return fixed("PolicyStatus", status)(c)
}
