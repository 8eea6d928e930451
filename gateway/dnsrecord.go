package gateway

// DNSRecord is one that the operator of a host sets at the domain's name servers.
type DNSRecord struct {
	Name  string `json:"name"`  // complete, with a final dot
	Type  string `json:"type"`  // such as "MX" or "TXT"
	Value string `json:"value"` // as in a zone file (RFC 1035 §5.1): a long text is several strings
	Why   string `json:"why"`   // what it is for
}
