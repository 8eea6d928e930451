package s3

import (
	"encoding/xml"
	"io"
	"maps"
	"net/http"
	"slices"

	"lodge/storage/store"
)

// config is a sub-resource of a bucket that is kept as a document.
type config struct {
	missing string             // the code of GET without one
	text    string             // and the message
	check   func([]byte) error // refuses what is malformed, and what would have no effect; nil: PUT is refused
}

// configOf is the table of the documents of a bucket, by the name in the query.
func configOf(name string) (config, bool) {
	c, ok := map[string]config{
		"policy":            {missing: "NoSuchBucketPolicy", text: "The bucket policy does not exist."},
		"cors":              {missing: "NoSuchCORSConfiguration", text: "The CORS configuration does not exist", check: checkCORS},
		"lifecycle":         {missing: "NoSuchLifecycleConfiguration", text: "The lifecycle configuration does not exist", check: checkLifecycle},
		"website":           {missing: "NoSuchWebsiteConfiguration", text: "The specified bucket does not have a website configuration", check: checkWebsite},
		"replication":       {missing: "ReplicationConfigurationNotFoundError", text: "The replication configuration was not found"},
		"encryption":        {missing: "ServerSideEncryptionConfigurationNotFoundError", text: "The server side encryption configuration was not found", check: checkEncryption},
		"publicAccessBlock": {missing: "NoSuchPublicAccessBlockConfiguration", text: "The public access block configuration was not found", check: checkAccessBlock},
		"ownershipControls": {missing: "OwnershipControlsNotFoundError", text: "The bucket ownership controls were not found.", check: checkOwnership},
	}[name]
	return c, ok
}

func getConfig(name string) verb {
	return func(c *call) error {
		b, err := c.bucket()
		if err != nil {
			return err
		}
		conf, _ := configOf(name)
		text, ok := b.Config[name]
		if !ok {
			return Errorf(http.StatusNotFound, conf.missing, "%s", conf.text)
		}
		c.w.Header().Set("Content-Type", "application/xml")
		_, _ = c.w.Write(text) // the client may have left
		return nil
	}
}

func putConfig(name string) verb {
	return func(c *call) error {
		conf, _ := configOf(name)
		if conf.check == nil {
			return notImplemented("The setting %q is not implemented.", name)
		}
		text, err := c.document(maxDocument, func(r io.Reader) ([]byte, error) { return readXML(r, maxItems) })
		if err != nil {
			return err
		}
		if err := conf.check(text); err != nil {
			return err
		}
		return c.configure(name, text)
	}
}

func deleteConfig(name string) verb {
	return func(c *call) error {
		if err := c.configure(name, nil); err != nil {
			return err
		}
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

// configure stores a document of the bucket; nil removes it.
func (c *call) configure(name string, text []byte) error {
	return c.Store.ConfigureBucket(c.VM.ID, c.Bucket, func(b *store.Bucket) error {
		b.Config = maps.Clone(b.Config)
		if b.Config == nil {
			b.Config = map[string][]byte{}
		}
		if b.Config[name] = text; text == nil {
			delete(b.Config, name)
		}
		return nil
	})
}

func checkOwnership(text []byte) error {
	var conf ownershipXML
	if xml.Unmarshal(text, &conf) != nil || len(conf.Rules) != 1 || !slices.Contains(ownerships(), conf.Rules[0].ObjectOwnership) {
		return errXML("The XML is no OwnershipControls with one rule.")
	}
	return nil
}

func checkAccessBlock(text []byte) error {
	var conf struct {
		XMLName xml.Name `xml:"PublicAccessBlockConfiguration"`
		accessBlock
	}
	if xml.Unmarshal(text, &conf) != nil {
		return errXML("The XML is no PublicAccessBlockConfiguration.")
	}
	return nil
}
