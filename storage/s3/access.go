package s3

import (
	"encoding/xml"
	"errors"
	"maps"
	"slices"
	"strings"

	"lodge/gateway"
	"lodge/storage/store"
)

// objectActions and bucketActions are the actions of a policy, by method and sub-resource. The owner needs
// none that is not here: what has no action cannot be done by others.
func objectActions() map[string]string {
	return map[string]string{
		"GET attributes": "GetObjectAttributes", "GET acl": "GetObjectAcl", "PUT acl": "PutObjectAcl",
		"GET tagging": "GetObjectTagging", "PUT tagging": "PutObjectTagging", "DELETE tagging": "DeleteObjectTagging",
		"GET retention": "GetObjectRetention", "PUT retention": "PutObjectRetention",
		"GET legal-hold": "GetObjectLegalHold", "PUT legal-hold": "PutObjectLegalHold",
		"GET uploadId": "ListMultipartUploadParts", "PUT uploadId": "PutObject", "DELETE uploadId": "AbortMultipartUpload",
		"POST uploadId": "PutObject", "POST uploads": "PutObject",
		"GET ": "GetObject", "HEAD ": "GetObject", "PUT ": "PutObject", "POST ": "PutObject", "DELETE ": "DeleteObject",
	}
}

func bucketActions() map[string]string {
	return map[string]string{
		"GET location": "GetBucketLocation", "GET versioning": "GetBucketVersioning", "PUT versioning": "PutBucketVersioning",
		"GET versions": "ListBucketVersions", "GET uploads": "ListBucketMultipartUploads", "GET acl": "GetBucketAcl", "PUT acl": "PutBucketAcl",
		"GET tagging": "GetBucketTagging", "PUT tagging": "PutBucketTagging", "DELETE tagging": "PutBucketTagging",
		"GET object-lock": "GetBucketObjectLockConfiguration", "PUT object-lock": "PutBucketObjectLockConfiguration",
		"GET logging": "GetBucketLogging", "GET notification": "GetBucketNotification", "PUT notification": "PutBucketNotification",
		"GET accelerate":     "GetAccelerateConfiguration",
		"GET requestPayment": "GetBucketRequestPayment", "GET policy": "GetBucketPolicy", "PUT policy": "PutBucketPolicy",
		"DELETE policy": "DeleteBucketPolicy", "GET policyStatus": "GetBucketPolicyStatus",
		"GET cors": "GetBucketCORS", "PUT cors": "PutBucketCORS", "DELETE cors": "PutBucketCORS",
		"GET lifecycle": "GetLifecycleConfiguration", "PUT lifecycle": "PutLifecycleConfiguration", "DELETE lifecycle": "PutLifecycleConfiguration",
		"GET website": "GetBucketWebsite", "PUT website": "PutBucketWebsite", "DELETE website": "DeleteBucketWebsite",
		"GET replication": "GetReplicationConfiguration", "PUT replication": "PutReplicationConfiguration", "DELETE replication": "PutReplicationConfiguration",
		"GET encryption": "GetEncryptionConfiguration", "PUT encryption": "PutEncryptionConfiguration", "DELETE encryption": "PutEncryptionConfiguration",
		"GET publicAccessBlock": "GetBucketPublicAccessBlock", "PUT publicAccessBlock": "PutBucketPublicAccessBlock",
		"DELETE publicAccessBlock": "PutBucketPublicAccessBlock", "GET ownershipControls": "GetBucketOwnershipControls",
		"PUT ownershipControls": "PutBucketOwnershipControls", "DELETE ownershipControls": "PutBucketOwnershipControls",
		"GET ": "ListBucket", "HEAD ": "ListBucket", "PUT ": "CreateBucket", "DELETE ": "DeleteBucket",
	}
}

// versionActions are those with an action of their own for a named version.
func versionActions() []string {
	return []string{"GetObject", "GetObjectAttributes", "GetObjectAcl", "PutObjectAcl", "GetObjectTagging", "PutObjectTagging", "DeleteObjectTagging", "DeleteObject"}
}

// versionAction is the action for a version; "" for the latest.
func versionAction(action, version string) string {
	if version == "" || !slices.Contains(versionActions(), action) {
		return action
	}
	for _, of := range []string{"GetObject", "PutObject", "DeleteObject"} {
		if rest, ok := strings.CutPrefix(action, of); ok {
			return of + "Version" + rest
		}
	}
	return action
}

// policyActions are all actions that a policy can name.
func policyActions() []string {
	all := []string{"s3:BypassGovernanceRetention", "s3:ListAllMyBuckets"}
	for _, table := range []map[string]string{objectActions(), bucketActions()} {
		for _, a := range table {
			all = append(all, "s3:"+a, "s3:"+versionAction(a, "v"))
		}
	}
	return all
}

// actions are what a request needs, by its route and its headers.
func (c *call) actions(r route) []string {
	table := bucketActions()
	if c.Key != "" {
		table = objectActions()
	}
	action := table[c.r.Method+" "+r.query]
	if action == "" {
		return nil
	}
	all := []string{versionAction(action, c.version())}
	if action != "PutObject" && action != "DeleteObject" && action != "PutObjectRetention" {
		return all
	}
	for header, also := range map[string]string{
		"X-Amz-Tagging": "PutObjectTagging", "X-Amz-Acl": "PutObjectAcl", "X-Amz-Object-Lock-Mode": "PutObjectRetention",
		"X-Amz-Object-Lock-Legal-Hold": "PutObjectLegalHold", "X-Amz-Bypass-Governance-Retention": "BypassGovernanceRetention",
	} {
		if c.r.Header.Get(header) != "" {
			all = append(all, also)
		}
	}
	for name := range c.r.Header {
		if strings.HasPrefix(name, headerOfGrant) {
			all = append(all, "PutObjectAcl")
		}
	}
	return all
}

// authorize checks that the caller may make the request. The owner may always read, set and remove the
// bucket's policy, as in S3: else a policy could lock its owner out.
func (c *call) authorize(r route) error {
	if c.Bucket == "" {
		if c.Anonymous {
			return denied("Access Denied")
		}
		return nil
	}
	owns := !c.Anonymous && c.Granted == gateway.NoBucketAccess
	if r.query == policyConfig && owns {
		return nil
	}
	j, err := c.judge(c.Bucket)
	if errors.Is(err, store.ErrNoBucket) && owns {
		return nil // the verb answers that, or makes it
	}
	if err != nil {
		return err
	}
	actions := c.actions(r)
	eachKey := r.query == "delete" && !c.Anonymous // the verb authorizes it
	if len(actions) == 0 && !owns && !eachKey {
		return denied("Access Denied")
	}
	for _, action := range actions {
		if err := j.allows(action, c.Key); err != nil {
			return err
		}
	}
	return nil
}

// judge evaluates the settings of one bucket for the caller.
type judge struct {
	*call
	bucket store.Bucket
	policy []statement
	held   map[int]bool // the statements whose conditions were evaluated: they are about the request alone
	block  accessBlock
}

// judge reads the settings of a bucket. By a grant there is the granted one alone.
func (c *call) judge(bucket string) (*judge, error) {
	if c.Granted != gateway.NoBucketAccess && bucket != c.Bucket {
		return nil, denied("The grant is for another bucket.")
	}
	b, err := c.Store.Bucket(c.VM.ID, bucket)
	if err != nil {
		return nil, err
	}
	j := &judge{call: c, bucket: b, block: accessBlockOf(b), held: map[int]bool{}}
	if text, ok := b.Config[policyConfig]; ok {
		if j.policy, err = c.policies.parse(text, b.Name); err != nil {
			return nil, denied("The bucket's policy cannot be applied: %v. Set it again, or remove it.", err)
		}
	}
	return j, nil
}

// allows evaluates one action on an object, or on the bucket. The owner may do what no statement denies;
// who is anonymous, what a statement or a list allows and no statement denies.
func (j *judge) allows(action, name string) error {
	if !j.covers(action) {
		return denied("The bucket is another VM's, which has granted to %s. That does not include s3:%s.", j.Granted, action)
	}
	resource := j.bucket.Name
	if name != "" {
		resource += "/" + name
	}
	shared := j.Reads && (action == "GetObject" || action == "ListBucket")
	allowed := !j.Anonymous || shared
	for i, s := range j.policy {
		if j.Anonymous && !s.everyone || !s.actions.match("s3:"+action) || !s.resources.match(resource) || !j.applies(i) {
			continue
		}
		if !s.allow {
			return denied("The bucket's policy denies s3:%s here.", action)
		}
		allowed = true
	}
	if j.Anonymous && j.block.RestrictPublicBuckets {
		allowed = shared
	}
	if !allowed && !j.listed(action, name) {
		return denied("Access Denied")
	}
	return nil
}

// applies reports whether the conditions of a statement hold.
func (j *judge) applies(i int) bool {
	holds, ok := j.held[i]
	if !ok {
		holds = j.holds(j.policy[i].conditions)
		j.held[i] = holds
	}
	return holds
}

// listed reports whether an access control list lets everyone do this.
func (j *judge) listed(action, name string) bool {
	if j.block.RestrictPublicBuckets || j.block.IgnorePublicAcls || ownershipOf(j.bucket) == enforced {
		return false
	}
	switch action {
	case "GetObject":
		o, err := j.Store.Head(store.Key{VM: j.VM.ID, Bucket: j.bucket.Name, Name: name}, "")
		return err == nil && grants(o.ACL, granteeAll, "READ")
	case "ListBucket":
		return grants(string(j.bucket.Config[aclConfig]), granteeAll, "READ")
	case "PutObject", "DeleteObject":
		return grants(string(j.bucket.Config[aclConfig]), granteeAll, "WRITE")
	}
	return false
}

const accessBlockConfig = "publicAccessBlock"

// accessBlock is the setting against what is public.
type accessBlock struct {
	BlockPublicAcls, IgnorePublicAcls, BlockPublicPolicy, RestrictPublicBuckets bool
}

// BlockPublic closes a bucket to everyone, whatever its policy, its lists and its website are.
func BlockPublic(b *store.Bucket) {
	text, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"PublicAccessBlockConfiguration"`
		accessBlock
	}{accessBlock: accessBlock{true, true, true, true}})
	if err != nil {
		panic(err) // truths are always XML
	}
	config := maps.Clone(b.Config) // configurations are shared, and never changed in place
	if config == nil {
		config = map[string][]byte{}
	}
	config[accessBlockConfig], b.Config = text, config
}

func accessBlockOf(b store.Bucket) (block accessBlock) {
	if text, ok := b.Config[accessBlockConfig]; ok && xml.Unmarshal(text, &block) != nil {
		return accessBlock{true, true, true, true} // it was checked when it was set
	}
	return block
}

// enforced is the ownership without access control lists. A bucket without a setting has it, as in S3.
const enforced = "BucketOwnerEnforced"

func ownershipOf(b store.Bucket) string {
	var conf ownershipXML
	if xml.Unmarshal(b.Config["ownershipControls"], &conf) != nil || len(conf.Rules) != 1 {
		return enforced
	}
	return conf.Rules[0].ObjectOwnership
}
