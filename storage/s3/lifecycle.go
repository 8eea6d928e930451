package s3

import (
	"encoding/xml"
	"math"
	"strings"
	"time"

	"lodge/storage/store"
)

const (
	lifecycleConfig   = "lifecycle"
	maxLifecycleRules = 1000
	maxLifecycleDays  = math.MaxInt32 // S3's limit
	day               = 24 * time.Hour
)

// lifecycleXML is the document with the times at which objects of a bucket end.
type lifecycleXML struct {
	XMLName xml.Name        `xml:"LifecycleConfiguration"`
	Rules   []lifecycleRule `xml:"Rule"`
}

// unknown are elements that are not known here. A rule that has one is refused: without it, the rule
// would end more than its author means.
type unknown []struct{}

type lifecycleRule struct {
	ID         string
	Status     string
	Prefix     *string
	Filter     *lifecycleFilter
	Expiration *struct {
		Days                      *int
		Date                      string
		ExpiredObjectDeleteMarker bool
		Unknown                   unknown `xml:",any"`
	}
	NoncurrentVersionExpiration *struct {
		NoncurrentDays          *int
		NewerNoncurrentVersions int
		Unknown                 unknown `xml:",any"`
	}
	AbortIncompleteMultipartUpload *struct {
		DaysAfterInitiation *int
		Unknown             unknown `xml:",any"`
	}
	Transition                  *struct{}
	NoncurrentVersionTransition *struct{}
	Unknown                     unknown `xml:",any"`
}

type lifecycleFilter struct {
	lifecycleTest
	And *lifecycleTest
}

type lifecycleTest struct {
	Prefix                string
	Tags                  []tagXML `xml:"Tag"`
	ObjectSizeGreaterThan *int64
	ObjectSizeLessThan    *int64
	Unknown               unknown `xml:",any"`
}

// empty reports whether the test selects all objects.
func (t lifecycleTest) empty() bool {
	return t.Prefix == "" && len(t.Tags) == 0 && t.ObjectSizeGreaterThan == nil && t.ObjectSizeLessThan == nil
}

// check refuses a filter that selects other objects than it seems to.
func (f *lifecycleFilter) check() error {
	switch {
	case f == nil:
		return nil
	case len(f.Unknown) > 0 || f.And != nil && len(f.And.Unknown) > 0:
		return errXML("A Filter has an element that is not known.")
	case f.And != nil && (!f.empty() || f.And.empty()):
		return errXML("A Filter with And has its conditions inside of And.")
	}
	return nil
}

func checkLifecycle(text []byte) error {
	var conf lifecycleXML
	if xml.Unmarshal(text, &conf) != nil || len(conf.Rules) == 0 || len(conf.Rules) > maxLifecycleRules {
		return errXML("The XML is no LifecycleConfiguration with 1 to %d rules.", maxLifecycleRules)
	}
	seen := map[string]bool{}
	for _, r := range conf.Rules {
		if err := r.check(); err != nil {
			return err
		}
		if r.ID != "" && seen[r.ID] {
			return invalidArgument("RuleId must be unique. Found same ID for one or more rules.")
		}
		seen[r.ID] = true
	}
	return nil
}

func (r lifecycleRule) check() error {
	positive := func(days *int) bool { return days == nil || *days > 0 && *days <= maxLifecycleDays }
	switch {
	case len(r.ID) > 255:
		return invalidArgument("ID length should not exceed allowed limit of 255")
	case r.Status != "Enabled" && r.Status != "Disabled":
		return errXML("The Status of a rule is Enabled or Disabled.")
	case r.Prefix != nil && r.Filter != nil:
		return errXML("A rule has a Prefix or a Filter, not both.")
	case r.hasUnknown():
		return errXML("A rule has an element that is not known.")
	case r.Transition != nil || r.NoncurrentVersionTransition != nil:
		return notImplemented("Transitions are not implemented: all objects are stored alike.")
	case r.Expiration == nil && r.NoncurrentVersionExpiration == nil && r.AbortIncompleteMultipartUpload == nil:
		return invalidRequest("At least one action needs to be specified in a rule")
	}
	if err := r.Filter.check(); err != nil {
		return err
	}
	if e := r.Expiration; e != nil {
		given := 0
		for _, is := range []bool{e.Days != nil, e.Date != "", e.ExpiredObjectDeleteMarker} {
			if is {
				given++
			}
		}
		date, err := time.Parse(time.RFC3339, e.Date)
		switch {
		case given != 1:
			return errXML("An Expiration has one of Days, Date and ExpiredObjectDeleteMarker.")
		case !positive(e.Days):
			return invalidArgument("'Days' for Expiration action must be a positive integer")
		case e.Date != "" && (err != nil || !date.Equal(date.Truncate(day))):
			return invalidArgument("'Date' must be at midnight GMT")
		}
	}
	if n := r.NoncurrentVersionExpiration; n != nil && (n.NoncurrentDays == nil || !positive(n.NoncurrentDays) || n.NewerNoncurrentVersions < 0 || n.NewerNoncurrentVersions > 100) {
		return invalidArgument("'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer, and 'NewerNoncurrentVersions' 1 to 100")
	}
	if a := r.AbortIncompleteMultipartUpload; a != nil && (a.DaysAfterInitiation == nil || !positive(a.DaysAfterInitiation)) {
		return invalidArgument("'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer")
	}
	return nil
}

func (r lifecycleRule) hasUnknown() bool {
	e, n, a := r.Expiration, r.NoncurrentVersionExpiration, r.AbortIncompleteMultipartUpload
	return len(r.Unknown) > 0 || e != nil && len(e.Unknown) > 0 || n != nil && len(n.Unknown) > 0 || a != nil && len(a.Unknown) > 0
}

// prefix is that of all keys which the rule can be about.
func (r lifecycleRule) prefix() string {
	switch {
	case r.Prefix != nil:
		return *r.Prefix
	case r.Filter == nil:
		return ""
	case r.Filter.And != nil:
		return r.Filter.And.Prefix
	}
	return r.Filter.Prefix
}

// selects reports whether the rule is about an object.
func (r lifecycleRule) selects(o store.Object) bool {
	if r.Status != "Enabled" || !strings.HasPrefix(o.Key.Name, r.prefix()) {
		return false
	}
	if r.Filter == nil {
		return true
	}
	test := r.Filter.lifecycleTest
	if r.Filter.And != nil {
		test = *r.Filter.And
	}
	for _, tag := range test.Tags {
		if value, ok := o.Tags[tag.Key]; !ok || value != tag.Value {
			return false
		}
	}
	return (test.ObjectSizeGreaterThan == nil || o.Size > *test.ObjectSizeGreaterThan) && (test.ObjectSizeLessThan == nil || o.Size < *test.ObjectSizeLessThan)
}

// due is when something ends that began at a time and lasts so many days: at a midnight, as with S3. A
// time.Duration has room for 292 years only.
func due(from time.Time, days int) time.Time {
	end := from.UTC().AddDate(0, 0, min(days, maxLifecycleDays))
	if midnight := end.Truncate(day); !midnight.Equal(end) {
		return midnight.Add(day)
	}
	return end
}

// expires reports whether the latest version of an object ends by the rule.
func (r lifecycleRule) expires(o store.Object, now time.Time) bool {
	e := r.Expiration
	if e == nil || o.Deleted || !r.selects(o) {
		return false
	}
	if e.Days != nil {
		return !now.Before(due(o.Modified, *e.Days))
	}
	date, err := time.Parse(time.RFC3339, e.Date)
	return err == nil && !now.Before(date)
}

// expiresOld reports whether an older version ends by the rule. It was replaced at a time, and so many
// older versions are newer.
func (r lifecycleRule) expiresOld(o store.Object, replaced time.Time, newer int, now time.Time) bool {
	n := r.NoncurrentVersionExpiration
	return n != nil && r.selects(o) && newer >= n.NewerNoncurrentVersions && !now.Before(due(replaced, *n.NoncurrentDays))
}

// expiresMarker reports whether a delete marker, which hides no version any more, ends by the rule.
func (r lifecycleRule) expiresMarker(o store.Object) bool {
	return r.Expiration != nil && r.Expiration.ExpiredObjectDeleteMarker && r.selects(o)
}

// aborts reports whether an upload ends by the rule.
func (r lifecycleRule) aborts(up store.Upload, now time.Time) bool {
	a := r.AbortIncompleteMultipartUpload
	return a != nil && r.selects(store.Object{Key: up.Key}) && !now.Before(due(up.Started, *a.DaysAfterInitiation))
}
