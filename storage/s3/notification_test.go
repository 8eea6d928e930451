package s3

import (
	"bytes"
	"encoding/xml"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// What is stored of a configuration of events is itself one, with the same content, and its targets are
// ports and paths of the VM. What is refused has an error of S3's.
func FuzzNotification(f *testing.F) {
	for _, conf := range []string{
		"<QueueConfiguration><Queue>arn:lodge:http:::8080/hook</Queue><Event>s3:ObjectCreated:*</Event></QueueConfiguration>",
		"<TopicConfiguration><Id>a</Id><Topic>arn:lodge:http:::1//x@y?z=%3A</Topic><Event>s3:ObjectRemoved:Delete</Event>" +
			"<Filter><S3Key><FilterRule><Name>prefix</Name><Value>a&#x1F;/</Value></FilterRule></S3Key></Filter></TopicConfiguration>",
		"<QueueConfiguration><Queue>arn:aws:sqs:us-east-1:1:q</Queue><Event>s3:ObjectCreated:*</Event></QueueConfiguration>",
		"<EventBridgeConfiguration/>", "<Unknown/>", "",
	} {
		f.Add([]byte("<NotificationConfiguration>" + conf + "</NotificationConfiguration>"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		text, err := readXML(bytes.NewReader(text), maxItems)
		if err != nil || len(text) > maxNotifyDocument {
			return
		}
		stored, err := checkedNotification(text)
		if known, ok := errors.AsType[*Error](err); err != nil && (!ok || known.Status != http.StatusBadRequest && known.Status != http.StatusNotImplemented) {
			t.Errorf("refused by %v", err)
		}
		if err != nil || stored == nil {
			return
		}
		if again, err := checkedNotification(stored); err != nil || !bytes.Equal(again, stored) {
			t.Errorf("%q is stored, and is then %q, %v", stored, again, err)
		}
		var conf notificationXML
		if err := xml.Unmarshal(stored, &conf); err != nil {
			t.Fatal(err)
		}
		for _, n := range conf.all() {
			if port, path, ok := ParseTargetARN(n.target()); !ok || port == 0 || !strings.HasPrefix(path, "/") {
				t.Errorf("the target %q is port %d, path %q", n.target(), port, path)
			}
		}
	})
}
