package s3

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"lodge/gateway"
	"lodge/storage/store"
)

// Events finds the rules that ask for events. It has the configurations that it has read last, parsed.
type Events struct {
	mu    sync.Mutex
	all   map[string]*notificationXML // by their text
	bytes int                         // of the texts
}

// Rule returns the rule of a bucket that asks for an event (store.Config).
func (e *Events) Rule(b *store.Bucket, what, name string) (store.Rule, bool) {
	conf := e.of(b)
	if conf == nil {
		return store.Rule{}, false
	}
	for _, n := range conf.all() {
		if n.wants(what, name) {
			return store.Rule{ID: n.ID, Target: n.target()}, true
		}
	}
	return store.Rule{}, false
}

// Target returns where an event of a bucket goes now: the configuration may have changed. ok is false if it is gone.
func (e *Events) Target(b *store.Bucket, id string) (target string, ok bool) {
	conf := e.of(b)
	if conf == nil {
		return "", false
	}
	for _, n := range conf.all() {
		if n.ID == id {
			return n.target(), true
		}
	}
	return "", false
}

// of returns the configuration of a bucket, nil if there is none. Nobody may change it.
func (e *Events) of(b *store.Bucket) *notificationXML {
	text, ok := b.Config[notificationConfig]
	if !ok {
		return nil
	}
	e.mu.Lock()
	conf, ok := e.all[string(text)]
	e.mu.Unlock()
	if ok {
		return conf
	}
	conf = &notificationXML{}
	if xml.Unmarshal(text, conf) != nil { // it was checked when it was set
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.bytes += len(text); e.all == nil || e.bytes > maxCachedPolicies {
		e.all, e.bytes = map[string]*notificationXML{}, len(text)
	}
	e.all[string(text)] = conf
	return conf
}

// The JSON of an event, as S3 has it. What only AWS has (who asked, by what request) is not there.
type (
	eventsJSON struct {
		Records []eventJSON `json:"Records"`
	}
	eventJSON struct {
		EventVersion string      `json:"eventVersion"`
		EventSource  string      `json:"eventSource"`
		AWSRegion    string      `json:"awsRegion"`
		EventTime    string      `json:"eventTime"`
		EventName    string      `json:"eventName"`
		S3           eventS3JSON `json:"s3"`
	}
	eventS3JSON struct {
		Version       string          `json:"s3SchemaVersion"`
		Configuration string          `json:"configurationId"`
		Bucket        eventBucketJSON `json:"bucket"`
		Object        eventObjectJSON `json:"object"`
	}
	eventBucketJSON struct {
		Name  string         `json:"name"`
		Owner eventOwnerJSON `json:"ownerIdentity"`
		ARN   string         `json:"arn"`
	}
	eventOwnerJSON struct {
		ID string `json:"principalId"`
	}
	eventObjectJSON struct {
		Key       string `json:"key"`
		Size      *int64 `json:"size,omitempty"`
		ETag      string `json:"eTag,omitempty"`
		Version   string `json:"versionId,omitempty"`
		Sequencer string `json:"sequencer"`
	}
)

// EncodeEvent returns an event of a VM as S3 sends it: the key is encoded as in a form, with + for a space. A removed
// object has no size and no ETag. Sequencers of one key, of 16 digits, sort as its events.
func EncodeEvent(vm gateway.ID, e store.Event) ([]byte, error) {
	o := eventObjectJSON{Key: strings.ReplaceAll(url.QueryEscape(e.Name), "%2F", "/"), Version: e.Version, Sequencer: Sequencer(e)}
	if strings.HasPrefix(e.What, "ObjectCreated:") {
		o.Size, o.ETag = &e.Size, e.ETag
	}
	return json.Marshal(eventsJSON{[]eventJSON{{
		EventVersion: "2.1", EventSource: "aws:s3", AWSRegion: region, EventTime: timestamp(e.Time), EventName: e.What,
		S3: eventS3JSON{
			Version: "1.0", Configuration: e.Rule.ID, Object: o,
			Bucket: eventBucketJSON{e.Bucket, eventOwnerJSON{vm.String()}, "arn:aws:s3:::" + e.Bucket},
		},
	}}})
}

// Sequencer is the same at each attempt to deliver an event.
func Sequencer(e store.Event) string { return fmt.Sprintf("%016X", e.Number) }
