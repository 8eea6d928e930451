package s3

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// policy is what the signer of a form permits (AWS: "POST Policy").
type policy struct {
	expiration time.Time
	tests      []policyTest
	min, max   int64 // of the file, in bytes; max -1: any
}

type policyTest struct {
	prefix       bool // starts-with, and not eq
	field, value string
}

func errPolicy(why string) error {
	return badRequest("InvalidPolicyDocument", "The content of the form does not meet the conditions specified in the policy document: %s.", why)
}

func errPolicyFailed(format string, args ...any) error {
	return denied("Invalid according to Policy: "+format, args...)
}

// parsePolicy parses the policy of a form, in base64.
func parsePolicy(text string) (*policy, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errPolicy("it is not base64")
	}
	var doc map[string]json.RawMessage
	if json.Unmarshal(raw, &doc) != nil {
		return nil, errPolicy("it is no JSON object")
	}
	p := &policy{max: -1}
	var expiration string
	var conditions []json.RawMessage
	for name, value := range doc {
		switch name {
		case "expiration":
			err = json.Unmarshal(value, &expiration)
		case "conditions":
			err = json.Unmarshal(value, &conditions)
		default:
			err = errPolicy("it has an unexpected element")
		}
		if err != nil {
			return nil, errPolicy("the element " + name + " is not what it should be")
		}
	}
	if p.expiration, err = time.Parse(time.RFC3339, expiration); err != nil {
		return nil, errPolicy("its expiration is no time")
	}
	if len(conditions) == 0 {
		return nil, errPolicy("it has no conditions")
	}
	for _, c := range conditions {
		if err := p.condition(c); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// condition parses one condition: an object of fields, or a list of an operator, a field and a value.
func (p *policy) condition(raw json.RawMessage) error {
	var fields map[string]string
	if json.Unmarshal(raw, &fields) == nil && len(fields) > 0 {
		for name, value := range fields {
			p.tests = append(p.tests, policyTest{false, strings.ToLower(name), value})
		}
		return nil
	}
	var list []any
	if json.Unmarshal(raw, &list) != nil || len(list) != 3 {
		return errPolicy("a condition is no object of texts, and no list of three")
	}
	operator, ok := list[0].(string)
	if !ok {
		return errPolicy("an operator is no text")
	}
	if operator = strings.ToLower(operator); operator == "content-length-range" {
		low, okLow := list[1].(float64)
		high, okHigh := list[2].(float64)
		if !okLow || !okHigh || low < 0 || high < low || high > maxPutBytes*1024 {
			return errPolicy("a content-length-range is no two numbers")
		}
		p.min, p.max = int64(low), int64(high)
		return nil
	}
	field, okField := list[1].(string)
	value, okValue := list[2].(string)
	name, dollar := strings.CutPrefix(field, "$")
	if operator != "eq" && operator != "starts-with" || !okField || !okValue || !dollar {
		return errPolicy("a condition is no [\"eq\", \"$field\", \"value\"] or [\"starts-with\", …]")
	}
	p.tests = append(p.tests, policyTest{operator == "starts-with", strings.ToLower(name), value})
	return nil
}

// check refuses a form that the policy does not permit: each condition must hold, and each field must
// have one.
func (p *policy) check(fields map[string]string, now time.Time) error {
	if !now.Before(p.expiration) {
		return errPolicyFailed("Policy expired.")
	}
	tested := map[string]bool{"policy": true, "x-amz-signature": true, "file": true}
	for _, t := range p.tests {
		tested[t.field] = true
		got, ok := fields[t.field]
		if !ok && (!t.prefix || t.value != "") {
			return errPolicyFailed("Policy Condition failed: the form has no field %.80q", t.field)
		}
		if t.prefix && !strings.HasPrefix(got, t.value) || !t.prefix && got != t.value {
			return errPolicyFailed("Policy Condition failed: the field %.80q", t.field)
		}
	}
	for name := range fields {
		if !tested[name] && name != "bucket" && !strings.HasPrefix(name, "x-ignore-") {
			return errPolicyFailed("Extra input fields: %.80s", name)
		}
	}
	return nil
}

// checkLength refuses a file whose length is out of the range.
func (p *policy) checkLength(n int64, ended bool) error {
	switch {
	case p.max >= 0 && n > p.max, n > maxPutBytes:
		return badRequest("EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.")
	case ended && n < p.min:
		return Errorf(http.StatusBadRequest, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed object size.")
	}
	return nil
}
