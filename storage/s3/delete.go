package s3

import (
	"encoding/xml"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"lodge/gateway"
	"lodge/storage/store"
)

type deleteXML struct {
	Quiet   bool
	Objects []deletionXML `xml:"Object"`
}

type deletionXML struct {
	Key              string
	VersionID        string `xml:"VersionId"`
	ETag             *string
	Size             *int64
	LastModifiedTime string
}

type deletedXML struct {
	Key                   string
	VersionID             string `xml:"VersionId,omitempty"`
	DeleteMarker          bool   `xml:",omitempty"`
	DeleteMarkerVersionID string `xml:"DeleteMarkerVersionId,omitempty"`
}

type deleteErrorXML struct {
	Key       string
	VersionID string `xml:"VersionId,omitempty"`
	Code      string
	Message   string
}

type deleteResultXML struct {
	XMLName xml.Name         `xml:"http://s3.amazonaws.com/doc/2006-03-01/ DeleteResult"`
	Deleted []deletedXML     `xml:",omitempty"`
	Errors  []deleteErrorXML `xml:"Error"`
}

// deleteObjects answers DeleteObjects. One batch deletes all.
func deleteObjects(c *call) error {
	var list deleteXML
	if err := c.decode(&list, maxList, maxKeys); err != nil {
		return err
	}
	if len(list.Objects) == 0 {
		return errXML("The XML lists no objects.")
	}
	j, err := c.judge(c.Bucket)
	if err != nil {
		return err
	}
	var out deleteResultXML
	var deletions []store.Deletion
	for _, o := range list.Objects {
		if err := c.r.Context().Err(); err != nil {
			return err
		}
		d, err := j.deletion(o)
		if err != nil {
			out.Errors = append(out.Errors, c.deleteError(d, err))
			continue
		}
		deletions = append(deletions, d)
	}
	results, err := c.Store.DeleteAll(c.r.Context(), c.VM.ID, c.Bucket, deletions)
	if err != nil {
		return err
	}
	for i, res := range results {
		d := deletions[i]
		if res.Err != nil && !errors.Is(res.Err, store.ErrNoKey) && !errors.Is(res.Err, store.ErrNoVersion) {
			out.Errors = append(out.Errors, c.deleteError(d, res.Err))
			continue
		}
		if list.Quiet {
			continue
		}
		x := deletedXML{Key: d.Name, VersionID: d.Version, DeleteMarker: res.Object.Deleted}
		if res.Object.Deleted {
			x.DeleteMarkerVersionID = res.Object.Version
		}
		out.Deleted = append(out.Deleted, x)
	}
	return c.reply(out)
}

// deletion is what the store is to delete for one element, if the caller may.
func (j *judge) deletion(o deletionXML) (store.Deletion, error) {
	d := store.Deletion{Name: o.Key, Version: o.VersionID, If: store.Condition{IfSize: o.Size}, Bypass: j.bypass()}
	err := checkKey(o.Key)
	if err == nil {
		err = j.allows(versionAction("DeleteObject", o.VersionID), o.Key)
	}
	if err == nil && d.Bypass {
		err = j.allows("BypassGovernanceRetention", o.Key)
	}
	if err == nil && o.ETag != nil {
		d.If.IfMatch, err = demanded(*o.ETag)
	}
	if err == nil && o.LastModifiedTime != "" {
		d.If.IfModified, err = parseTime(o.LastModifiedTime)
	}
	return d, err
}

func (c *call) deleteError(d store.Deletion, err error) deleteErrorXML {
	known, ok := AsError(err)
	if !ok {
		c.Logger.Error("object was not deleted", gateway.LogVM(c.VM), slog.String("bucket", c.Bucket), slog.String("object", d.Name), slog.Any("err", err))
	}
	return deleteErrorXML{d.Name, d.Version, known.Code, known.Message}
}

// parseTime parses a time of XML or of HTTP.
func parseTime(text string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	t, err := http.ParseTime(text)
	if err != nil {
		return t, invalidArgument("%.60q is no time.", text)
	}
	return t, nil
}
