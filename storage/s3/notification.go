package s3

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"lodge/gateway"
	"lodge/storage/store"
)

// The notification configuration of a bucket: which events the VM gets, and where. A target is a port and a path of
// the bucket's own VM, as an ARN, so that clients take it: arn:lodge:http:::8080/path.

const (
	notificationConfig = "notification"
	targetPrefix       = "arn:lodge:http:::"
	maxNotifications   = 100 // as S3
	maxTargetBytes     = 500
	maxRuleIDBytes     = 255
	maxNotifyDocument  = 32 << 10 // it is read for each write to the bucket
)

type notificationXML struct {
	XMLName     xml.Name    `xml:"NotificationConfiguration"`
	Xmlns       string      `xml:"xmlns,attr,omitempty"`
	Topics      []notifyXML `xml:"TopicConfiguration"`
	Queues      []notifyXML `xml:"QueueConfiguration"`
	Functions   []notifyXML `xml:"CloudFunctionConfiguration"`
	EventBridge *struct{}   `xml:"EventBridgeConfiguration"`
	Unknown     unknown     `xml:",any"`
}

// notifyXML is one configuration. S3 has three elements for the kinds of targets; here they mean the same.
type notifyXML struct {
	ID       string           `xml:"Id,omitempty"`
	Topic    string           `xml:"Topic,omitempty"`
	Queue    string           `xml:"Queue,omitempty"`
	Function string           `xml:"CloudFunction,omitempty"`
	Events   []string         `xml:"Event"`
	Filter   *notifyFilterXML `xml:"Filter"`
	Unknown  unknown          `xml:",any"`
}

type notifyFilterXML struct {
	Key     notifyKeyXML `xml:"S3Key"`
	Unknown unknown      `xml:",any"`
}

type notifyKeyXML struct {
	Rules   []filterRuleXML `xml:"FilterRule"`
	Unknown unknown         `xml:",any"`
}

type filterRuleXML struct {
	Name, Value string
	Unknown     unknown `xml:",any"`
}

func (n *notifyXML) target() string { return n.Topic + n.Queue + n.Function }

// filter returns the prefix and the suffix that a key must have.
func (n *notifyXML) filter() (prefix, suffix string) {
	if n.Filter == nil {
		return "", ""
	}
	for _, r := range n.Filter.Key.Rules {
		if strings.EqualFold(r.Name, "prefix") {
			prefix = r.Value
		} else {
			suffix = r.Value
		}
	}
	return prefix, suffix
}

// wants reports whether a configuration asks for an event.
func (n *notifyXML) wants(what, name string) bool {
	prefix, suffix := n.filter()
	return strings.HasPrefix(name, prefix) && strings.HasSuffix(name, suffix) &&
		slices.ContainsFunc(n.Events, func(e string) bool { return slices.Contains(eventsOf(e), what) })
}

func (c *notificationXML) all() []*notifyXML {
	var all []*notifyXML
	for _, kind := range [][]notifyXML{c.Topics, c.Queues, c.Functions} {
		for i := range kind {
			all = append(all, &kind[i])
		}
	}
	return all
}

// knownEvents are those that Lodge makes.
func knownEvents() []string {
	return []string{
		store.CreatedByPut, store.CreatedByPost, store.CreatedByCopy, store.CreatedFromParts,
		store.RemovedForGood, store.RemovedByMarker, store.ExpiredForGood, store.ExpiredByMarker,
	}
}

// eventsOf returns what an Event of a configuration stands for; none if it is not known.
func eventsOf(event string) (all []string) {
	name, ok := strings.CutPrefix(event, "s3:")
	if !ok {
		return nil
	}
	group, whole := strings.CutSuffix(name, "*")
	for _, known := range knownEvents() {
		if known == name || whole && strings.HasSuffix(group, ":") && strings.HasPrefix(known, group) {
			all = append(all, known)
		}
	}
	return all
}

// otherEvents begin the names of S3's events that Lodge does not make.
func otherEvents() []string {
	return []string{
		"s3:ObjectRestore:", "s3:ObjectTagging:", "s3:ObjectAcl:", "s3:Replication:", "s3:LifecycleTransition", "s3:IntelligentTiering",
		"s3:ReducedRedundancyLostObject", "s3:ObjectAnnotation:",
	}
}

// check refuses what no event would come of.
func (n *notifyXML) check() error {
	if len(n.Unknown) > 0 || len(n.ID) > maxRuleIDBytes {
		return errXML("The configuration has an element that is not known, or an Id of more than %d bytes.", maxRuleIDBytes)
	}
	if _, _, ok := ParseTargetARN(n.target()); !ok {
		return invalidArgument("Unable to validate the following destination configurations: %.200q. "+
			"A destination is a port and a path of this VM, such as %s8080/path.", n.target(), targetPrefix)
	}
	if len(n.Events) == 0 {
		return errXML("A configuration names at least one Event.")
	}
	for _, e := range n.Events {
		if len(eventsOf(e)) > 0 {
			continue
		}
		if slices.ContainsFunc(otherEvents(), func(begin string) bool { return strings.HasPrefix(e, begin) }) {
			return notImplemented("The event %q is not implemented.", e)
		}
		return invalidArgument("The event '%.60s' is not supported for notifications", e)
	}
	return n.checkFilter()
}

func (n *notifyXML) checkFilter() error {
	if n.Filter == nil {
		return nil
	}
	if len(n.Filter.Unknown) > 0 || len(n.Filter.Key.Unknown) > 0 {
		return errXML("The filter has an element that is not known.")
	}
	seen := map[string]bool{}
	for _, r := range n.Filter.Key.Rules {
		if len(r.Unknown) > 0 {
			return errXML("A rule of the filter has an element that is not known.")
		}
		name := strings.ToLower(r.Name)
		switch {
		case name != "prefix" && name != "suffix":
			return invalidArgument("filter rule name must be either prefix or suffix")
		case seen[name]:
			return invalidArgument("Cannot specify more than one %s rule in a filter.", name)
		case len(r.Value) > maxKeyBytes:
			return invalidArgument("Size of filter rule value cannot exceed %d bytes in UTF-8 representation", maxKeyBytes)
		}
		seen[name] = true
	}
	return nil
}

// overlaps reports whether one object's event may be asked for by both.
func (n *notifyXML) overlaps(o *notifyXML) bool {
	np, ns := n.filter()
	op, os := o.filter()
	if !strings.HasPrefix(np, op) && !strings.HasPrefix(op, np) || !strings.HasSuffix(ns, os) && !strings.HasSuffix(os, ns) {
		return false
	}
	for _, e := range n.Events {
		for _, what := range eventsOf(e) {
			if o.wants(what, longer(np, op)+longer(ns, os)) {
				return true
			}
		}
	}
	return false
}

func longer(a, b string) string {
	if len(a) > len(b) {
		return a
	}
	return b
}

// named returns the Id of a configuration. One that has none gets the same each time it is set, with another target too:
// what waits goes to that.
func (n *notifyXML) named() string {
	if n.ID != "" {
		return n.ID
	}
	prefix, suffix := n.filter()
	sum := sha256.Sum256([]byte(strings.Join(append(slices.Clone(n.Events), prefix, suffix), "\x00")))
	return hex.EncodeToString(sum[:16])
}

// ParseTargetARN reads the target of a configuration.
func ParseTargetARN(arn string) (port uint16, path string, ok bool) {
	rest, ok := strings.CutPrefix(arn, targetPrefix)
	if !ok || len(arn) > maxTargetBytes {
		return 0, "", false
	}
	digits, _, _ := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 || strings.ContainsFunc(rest, func(c rune) bool { return c <= ' ' || c > '~' || c == '#' || c == ':' }) {
		return 0, "", false
	}
	u, err := url.ParseRequestURI("/" + strings.TrimPrefix(rest[len(digits):], "/"))
	if err != nil {
		return 0, "", false
	}
	return uint16(n), u.RequestURI(), true
}

// checkedNotification returns the configuration to store, nil for none.
func checkedNotification(text []byte) ([]byte, error) {
	var conf notificationXML
	if xml.Unmarshal(text, &conf) != nil || len(conf.Unknown) > 0 {
		return nil, errXML("The XML is no NotificationConfiguration.")
	}
	if conf.EventBridge != nil {
		return nil, notImplemented("EventBridge is not implemented.")
	}
	all := conf.all()
	if len(all) > maxNotifications {
		return nil, invalidArgument("A bucket has at most %d notification configurations.", maxNotifications)
	}
	ids := map[string]bool{}
	for i, n := range all {
		if err := n.check(); err != nil {
			return nil, err
		}
		if n.ID = n.named(); ids[n.ID] {
			return nil, invalidArgument("The Id %.60q is that of more than one configuration.", n.ID)
		}
		ids[n.ID] = true
		if slices.ContainsFunc(all[:i], n.overlaps) {
			return nil, invalidArgument("Configurations overlap. Configurations on the same bucket cannot share a common event type.")
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	conf.XMLName, conf.Xmlns = xml.Name{Local: "NotificationConfiguration"}, xmlns
	return xml.Marshal(conf)
}

// putNotification answers PutBucketNotificationConfiguration. An empty one ends all events of the bucket. A target may be
// a port that is not shared, so no policy and no key for outside makes this possible.
func putNotification(c *call) error {
	if !c.Inside && !c.Host || c.Anonymous || c.Granted != gateway.NoBucketAccess {
		return denied("Notifications are configured from inside the bucket's VM, or from the host, alone.")
	}
	text, err := c.document(maxNotifyDocument, func(r io.Reader) ([]byte, error) { return readXML(r, maxItems) })
	if err != nil {
		return err
	}
	if text, err = checkedNotification(text); err != nil {
		return err
	}
	return c.configure(notificationConfig, text)
}

// getNotification answers GetBucketNotificationConfiguration. A bucket always has one; it may be empty.
func getNotification(c *call) error {
	b, err := c.bucket()
	if err != nil {
		return err
	}
	text, ok := b.Config[notificationConfig]
	if !ok {
		return fixed("NotificationConfiguration", "")(c)
	}
	c.w.Header().Set("Content-Type", "application/xml")
	_, _ = c.w.Write(text) // the client may have left
	return nil
}
