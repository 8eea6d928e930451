package s3

import "sync"

// maxCachedPolicies limits the texts of the policies in memory, which take some times as much when parsed.
const maxCachedPolicies = 1 << 20

// policyCache has parsed policies by their bucket's name and their text.
type policyCache struct {
	mu    sync.Mutex
	all   map[policyID][]statement
	bytes int // of the texts
}

type policyID struct{ bucket, text string }

// parse is parseBucketPolicy for any owner. Nobody may change what it returns.
func (c *policyCache) parse(text []byte, bucket string) ([]statement, error) {
	id := policyID{bucket, string(text)}
	c.mu.Lock()
	policy, ok := c.all[id]
	c.mu.Unlock()
	if ok {
		return policy, nil
	}
	policy, err := parseBucketPolicy(text, bucket, anyOwner)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bytes += len(text); c.all == nil || c.bytes > maxCachedPolicies {
		c.all, c.bytes = map[policyID][]statement{}, len(text)
	}
	c.all[id] = policy
	return policy, nil
}
