package s3

import (
	"encoding/xml"
	"errors"
	"net/http"
	"time"

	"lodge/storage/store"
)

type lockXML struct {
	XMLName           xml.Name `xml:"ObjectLockConfiguration"`
	Xmlns             string   `xml:"xmlns,attr,omitempty"`
	ObjectLockEnabled string
	Rule              *lockRuleXML `xml:",omitempty"`
}

type lockRuleXML struct {
	DefaultRetention struct {
		Mode  string
		Days  *int `xml:",omitempty"`
		Years *int `xml:",omitempty"`
	}
}

// lockConfig is the name of the document with a bucket's default retention.
const lockConfig = "object-lock"

func errNoLock() error {
	return invalidRequest("Bucket is missing ObjectLockConfiguration")
}

func checkMode(mode string) error {
	if mode != store.Governance && mode != store.Compliance {
		return errXML("The mode of retention is GOVERNANCE or COMPLIANCE.")
	}
	return nil
}

// lockOf sets the retention and the legal hold of a write: those of its headers, or the bucket's
// default.
func (c *call) lockOf(m *store.Meta) error {
	mode, until, hold := c.r.Header.Get("X-Amz-Object-Lock-Mode"), c.r.Header.Get("X-Amz-Object-Lock-Retain-Until-Date"), c.r.Header.Get("X-Amz-Object-Lock-Legal-Hold")
	b, err := c.bucket()
	if err != nil && !errors.Is(err, store.ErrNoBucket) {
		return err
	}
	if !b.Lock {
		if mode+until+hold != "" {
			return errNoLock()
		}
		return nil
	}
	switch {
	case hold != "" && hold != "ON" && hold != "OFF":
		return invalidArgument("Legal Hold must be either of 'ON' or 'OFF'")
	case (mode == "") != (until == ""):
		return invalidArgument("x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied")
	}
	m.LegalHold = hold == "ON"
	if mode == "" {
		m.Retention = defaultRetention(b, c.Now())
		return nil
	}
	if checkMode(mode) != nil {
		return invalidArgument("Unknown wormMode directive.")
	}
	t, err := time.Parse(time.RFC3339, until)
	if err != nil {
		return invalidArgument("The retain until date must be provided in ISO 8601 format")
	}
	if !t.After(c.Now()) {
		return invalidArgument("The retain until date must be in the future!")
	}
	m.Retention = store.Retention{Mode: mode, Until: t}
	return nil
}

// defaultRetention is that of the bucket's document.
func defaultRetention(b store.Bucket, now time.Time) store.Retention {
	var conf lockXML
	if xml.Unmarshal(b.Config[lockConfig], &conf) != nil || conf.Rule == nil {
		return store.Retention{} // no document, or one without a rule
	}
	d := conf.Rule.DefaultRetention
	if d.Years != nil {
		return store.Retention{Mode: d.Mode, Until: now.AddDate(*d.Years, 0, 0)}
	}
	return store.Retention{Mode: d.Mode, Until: now.AddDate(0, 0, *d.Days)}
}

// setLock sets the headers of an object's lock.
func (c *call) setLock(o store.Object) {
	if o.Retention.Mode != "" {
		c.set("x-amz-object-lock-mode", o.Retention.Mode)
		c.set("x-amz-object-lock-retain-until-date", timestamp(o.Retention.Until))
	}
	if o.LegalHold {
		c.set("x-amz-object-lock-legal-hold", "ON")
	}
}

func getLockConfig(c *call) error {
	b, err := c.bucket()
	if err != nil {
		return err
	}
	if !b.Lock {
		return Errorf(http.StatusNotFound, "ObjectLockConfigurationNotFoundError", "Object Lock configuration does not exist for this bucket")
	}
	conf := lockXML{ObjectLockEnabled: "Enabled"}
	if text, ok := b.Config[lockConfig]; ok {
		if err := xml.Unmarshal(text, &conf); err != nil {
			return err
		}
	}
	conf.Xmlns = xmlns
	conf.XMLName = xml.Name{Local: "ObjectLockConfiguration"}
	return c.reply(conf)
}

func putLockConfig(c *call) error {
	var conf lockXML
	if err := c.decode(&conf, maxDocument, maxItems); err != nil {
		return err
	}
	if conf.ObjectLockEnabled != "Enabled" {
		return errXML("ObjectLockEnabled must be Enabled.")
	}
	if r := conf.Rule; r != nil {
		if err := checkMode(r.DefaultRetention.Mode); err != nil {
			return err
		}
		days, years := r.DefaultRetention.Days, r.DefaultRetention.Years
		switch {
		case (days == nil) == (years == nil):
			return errXML("A default retention has either Days or Years.")
		case days != nil && (*days < 1 || *days > 36500), years != nil && (*years < 1 || *years > 100):
			return badRequest("InvalidRetentionPeriod", "Default retention period must be a positive integer value, of at most 100 years.")
		}
	}
	conf.Xmlns, conf.XMLName = "", xml.Name{Local: "ObjectLockConfiguration"}
	text, err := xml.Marshal(conf)
	if err != nil {
		return err
	}
	return c.Store.ConfigureBucket(c.VM.ID, c.Bucket, func(b *store.Bucket) error {
		if !b.Lock && b.Versioning != store.Enabled {
			return Errorf(http.StatusConflict, "InvalidBucketState", "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration")
		}
		b.Lock = true
		if b.Config == nil {
			b.Config = map[string][]byte{}
		}
		b.Config[lockConfig] = text
		return nil
	})
}

type retentionXML struct {
	XMLName         xml.Name `xml:"Retention"`
	Xmlns           string   `xml:"xmlns,attr,omitempty"`
	Mode            string   `xml:",omitempty"`
	RetainUntilDate string   `xml:",omitempty"`
}

type holdXML struct {
	XMLName xml.Name `xml:"LegalHold"`
	Xmlns   string   `xml:"xmlns,attr,omitempty"`
	Status  string
}

// locked is the version that a request about its lock names; its bucket must have object lock.
func (c *call) locked() (store.Object, error) {
	b, err := c.bucket()
	if err != nil {
		return store.Object{}, err
	}
	if !b.Lock {
		return store.Object{}, errNoLock()
	}
	o, err := c.Store.Head(c.storeKey(), c.version())
	if err != nil {
		return o, c.missing(o, err)
	}
	c.setVersion(o)
	return o, nil
}

func getRetention(c *call) error {
	o, err := c.locked()
	if err != nil {
		return err
	}
	if o.Retention.Mode == "" {
		return Errorf(http.StatusNotFound, "NoSuchObjectLockConfiguration", "The specified object does not have a ObjectLock configuration")
	}
	return c.reply(retentionXML{Xmlns: xmlns, Mode: o.Retention.Mode, RetainUntilDate: timestamp(o.Retention.Until)})
}

func putRetention(c *call) error {
	var conf retentionXML
	if err := c.decode(&conf, maxDocument, maxItems); err != nil {
		return err
	}
	var next store.Retention
	if conf.Mode != "" || conf.RetainUntilDate != "" {
		if err := checkMode(conf.Mode); err != nil {
			return err
		}
		t, err := time.Parse(time.RFC3339, conf.RetainUntilDate)
		if err != nil {
			return errXML("RetainUntilDate is no time of ISO 8601.")
		}
		if !t.After(c.Now()) {
			return invalidArgument("The retain until date must be in the future!")
		}
		next = store.Retention{Mode: conf.Mode, Until: t}
	}
	o, err := c.locked()
	if err != nil {
		return err
	}
	bypass := c.bypass()
	_, err = c.Store.Update(c.storeKey(), o.Version, func(m *store.Meta) error {
		held := m.Retention.Mode != "" && m.Retention.Until.After(c.Now())
		weaker := next.Until.Before(m.Retention.Until) || next.Mode != m.Retention.Mode && next.Mode != store.Compliance
		if held && weaker && (m.Retention.Mode == store.Compliance || !bypass) {
			return store.ErrLocked
		}
		m.Retention = next
		return nil
	})
	return err
}

func getLegalHold(c *call) error {
	o, err := c.locked()
	if err != nil {
		return err
	}
	status := "OFF"
	if o.LegalHold {
		status = "ON"
	}
	return c.reply(holdXML{Xmlns: xmlns, Status: status})
}

func putLegalHold(c *call) error {
	var conf holdXML
	if err := c.decode(&conf, maxDocument, maxItems); err != nil {
		return err
	}
	if conf.Status != "ON" && conf.Status != "OFF" {
		return errXML("The Status of a legal hold is ON or OFF.")
	}
	o, err := c.locked()
	if err != nil {
		return err
	}
	_, err = c.Store.Update(c.storeKey(), o.Version, func(m *store.Meta) error {
		m.LegalHold = conf.Status == "ON"
		return nil
	})
	return err
}
