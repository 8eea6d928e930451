package s3

import (
	"encoding/xml"
	"maps"
	"net/http"
	"slices"

	"lodge/storage/store"
)

type tagXML struct{ Key, Value string }

type taggingXML struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ Tagging"`
	Tags    []tagXML `xml:"TagSet>Tag"`
}

type tagsXML struct {
	XMLName xml.Name `xml:"Tagging"`
	Tags    []tagXML `xml:"TagSet>Tag"`
}

// decodeTags reads the tags in the body.
func (c *call) decodeTags(most int) (map[string]string, error) {
	var list tagsXML
	if err := c.decode(&list, maxDocument, maxItems); err != nil {
		return nil, err
	}
	tags := map[string]string{}
	for _, t := range list.Tags {
		if _, twice := tags[t.Key]; twice {
			return nil, badRequest("InvalidTag", "Cannot provide multiple Tags with the same key")
		}
		tags[t.Key] = t.Value
	}
	return tags, checkTags(tags, most)
}

func (c *call) replyTags(tags map[string]string) error {
	var out taggingXML
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		out.Tags = append(out.Tags, tagXML{name, tags[name]})
	}
	return c.reply(out)
}

func getTags(c *call) error {
	o, err := c.Store.Head(c.storeKey(), c.version())
	if err != nil {
		return c.missing(o, err)
	}
	c.setVersion(o)
	return c.replyTags(o.Tags)
}

func putTags(c *call) error {
	tags, err := c.decodeTags(maxTags)
	if err != nil {
		return err
	}
	return c.setTags(tags)
}

func deleteTags(c *call) error {
	if err := c.setTags(nil); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *call) setTags(tags map[string]string) error {
	o, err := c.Store.Head(c.storeKey(), c.version())
	if err != nil {
		return c.missing(o, err)
	}
	c.setVersion(o)
	_, err = c.Store.Update(c.storeKey(), o.Version, func(m *store.Meta) error {
		m.Tags = tags
		return nil
	})
	return err
}

// The tags of a bucket are a document, as its other settings.
func getBucketTags(c *call) error {
	b, err := c.bucket()
	if err != nil {
		return err
	}
	text, ok := b.Config["tagging"]
	if !ok {
		return Errorf(http.StatusNotFound, "NoSuchTagSet", "The bucket has no tags.")
	}
	c.w.Header().Set("Content-Type", "application/xml")
	_, _ = c.w.Write(text) // the client may have left
	return nil
}

func putBucketTags(c *call) error {
	tags, err := c.decodeTags(maxBucketTags)
	if err != nil {
		return err
	}
	var out taggingXML
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		out.Tags = append(out.Tags, tagXML{name, tags[name]})
	}
	text, err := xml.Marshal(out)
	if err != nil {
		return err
	}
	if err := c.configure("tagging", text); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
