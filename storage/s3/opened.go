package s3

import "lodge/storage/store"

// Opened names the settings of a bucket that may open it, or objects in it, to everyone: "policy", "acl" and "website",
// whose redirects nobody needs a right for. Lists of single objects are not read: where they are possible, they may.
func (h *Handler) Opened(b store.Bucket) (by []string) {
	block := accessBlockOf(b)
	if block.RestrictPublicBuckets {
		return nil
	}
	if text, ok := b.Config[policyConfig]; ok {
		if policy, err := h.policies.parse(text, b.Name); err == nil && public(policy) {
			by = append(by, "policy")
		}
	}
	if !block.IgnorePublicAcls && ownershipOf(b) != enforced {
		by = append(by, "acl")
	}
	if _, ok := b.Config[websiteConfig]; ok {
		by = append(by, "website")
	}
	return by
}
