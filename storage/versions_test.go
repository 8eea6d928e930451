package storage

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const versioned = "<VersioningConfiguration><Status>%s</Status></VersioningConfiguration>"

func (g guest) setVersioning(t *testing.T, bucket, status string) {
	t.Helper()
	g.doBody(t, "PUT", "/"+bucket+"?versioning", fmt.Sprintf(versioned, status)).want(t, "versioning "+status, 200)
}

// TestVersions walks through the life of versions and delete markers.
func TestVersions(t *testing.T) {
	g := newHost(t).guest("blog")
	g.doBody(t, "PUT", "/box/k", "zero").want(t, "put", 200)
	g.do(t, "GET", "/box?versioning", nil).want(t, "before", 200, "<VersioningConfiguration")
	g.doBody(t, "PUT", "/box?versioning", fmt.Sprintf(versioned, "Off")).want(t, "no status", 400, code("IllegalVersioningConfigurationException"))
	g.setVersioning(t, "box", "Enabled")
	g.do(t, "GET", "/box?versioning", nil).want(t, "after", 200, "<Status>Enabled</Status>")
	var ids []string
	for _, body := range []string{"one", "two"} {
		res := g.doBody(t, "PUT", "/box/k", body)
		res.want(t, body, 200)
		ids = append(ids, res.header.Get("X-Amz-Version-Id"))
	}
	g.do(t, "GET", "/box/k", nil).want(t, "latest", 200, "two")
	for id, body := range map[string]string{"null": "zero", ids[0]: "one", ids[1]: "two"} {
		res := g.do(t, "GET", "/box/k?versionId="+id, nil)
		if res.want(t, id, 200, body); res.header.Get("X-Amz-Version-Id") != id {
			t.Errorf("%s: %v", id, res.header)
		}
	}
	for _, id := range []string{"0123456789abcdef", "0123456789ABCDEF", "01BX5ZZKBKACTAV9WEVGEMMVRZ"} {
		g.do(t, "GET", "/box/k?versionId="+id, nil).want(t, "no version", 404, code("NoSuchVersion"))
	}
	for _, id := range []string{"", "nonsense", "0123456789-bcdef"} {
		g.do(t, "GET", "/box/k?versionId="+id, nil).want(t, "malformed", 400, code("InvalidArgument"))
	}
	g.do(t, "PUT", "/box/old", map[string]string{"X-Amz-Copy-Source": "box/k?versionId=nonsense"}).want(t, "copy of none", 400, code("InvalidArgument"))
	g.do(t, "PUT", "/box/old", map[string]string{"X-Amz-Copy-Source": "box/k?versionId=" + ids[0]}).want(t, "copy of a version", 200)
	g.do(t, "GET", "/box/old", nil).want(t, "the copy", 200, "one")
	g.doBody(t, "PUT", "/box/k?tagging&versionId="+ids[0], "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>").want(t, "tags of a version", 200)
	g.do(t, "GET", "/box/k?tagging&versionId="+ids[0], nil).want(t, "its tags", 200, "<Key>a</Key><Value>b</Value>")
	g.do(t, "GET", "/box/k?tagging", nil).want(t, "other tags", 200, "<TagSet></TagSet>")

	gone := g.do(t, "DELETE", "/box/k", nil)
	marker := gone.header.Get("X-Amz-Version-Id")
	if gone.status != 204 || gone.header.Get("X-Amz-Delete-Marker") != "true" || marker == "" {
		t.Fatalf("delete: %d %v", gone.status, gone.header)
	}
	missing := g.do(t, "GET", "/box/k", nil)
	if missing.want(t, "deleted", 404, code("NoSuchKey")); missing.header.Get("X-Amz-Delete-Marker") != "true" {
		t.Errorf("deleted: %v", missing.header)
	}
	g.do(t, "GET", "/box/k?versionId="+marker, nil).want(t, "the marker", 405, code("MethodNotAllowed"))
	g.do(t, "PUT", "/box/other", map[string]string{"X-Amz-Copy-Source": "box/k"}).want(t, "copy of what is deleted", 404)
	list := g.do(t, "GET", "/box?versions&prefix=k", nil)
	list.want(t, "versions", 200, "><Key>k</Key><VersionId>"+marker+"</VersionId><IsLatest>true</IsLatest>", "<VersionId>null</VersionId><IsLatest>false</IsLatest>")
	if n := strings.Count(list.body, "<Version "); n != 3 || strings.Index(list.body, ids[1]) > strings.Index(list.body, ids[0]) {
		t.Errorf("%d versions in %s", n, list.body)
	}
	g.do(t, "DELETE", "/box", nil).want(t, "the bucket", 409, code("BucketNotEmpty"))

	undo := g.do(t, "DELETE", "/box/k?versionId="+marker, nil)
	if undo.status != 204 || undo.header.Get("X-Amz-Delete-Marker") != "true" {
		t.Errorf("undo: %d %v", undo.status, undo.header)
	}
	g.do(t, "GET", "/box/k", nil).want(t, "undone", 200, "two")
	g.do(t, "DELETE", "/box/k?versionId="+ids[1], nil).want(t, "the latest version", 204)
	g.do(t, "GET", "/box/k", nil).want(t, "the version before", 200, "one")
	body := "<Delete><Object><Key>k</Key><VersionId>" + ids[0] + "</VersionId></Object><Object><Key>k</Key></Object></Delete>"
	g.doBody(t, "POST", "/box?delete", body).want(t, "many", 200, "<VersionId>"+ids[0]+"</VersionId>", "<DeleteMarker>true</DeleteMarker><DeleteMarkerVersionId>")

	g.setVersioning(t, "box", "Suspended")
	if res := g.doBody(t, "PUT", "/box/s", "1"); res.header.Get("X-Amz-Version-Id") != "" && res.header.Get("X-Amz-Version-Id") != "null" {
		t.Errorf("suspended: %v", res.header)
	}
	g.doBody(t, "PUT", "/box/s", "2").want(t, "again", 200)
	if list := g.do(t, "GET", "/box?versions&prefix=s", nil); strings.Count(list.body, "<Version ") != 1 {
		t.Errorf("suspended: %s", list.body)
	}
}

// TestObjectLock: what is retained cannot be removed, and a default covers each write.
func TestObjectLock(t *testing.T) {
	g := newHost(t).guest("blog")
	g.do(t, "PUT", "/plain", nil).want(t, "plain bucket", 200)
	g.do(t, "GET", "/plain?object-lock", nil).want(t, "no lock", 404, code("ObjectLockConfigurationNotFoundError"))
	rule := "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>%s</Mode>%s</DefaultRetention></Rule></ObjectLockConfiguration>"
	g.doBody(t, "PUT", "/plain?object-lock", fmt.Sprintf(rule, "GOVERNANCE", "<Days>1</Days>")).want(t, "without versions", 409, code("InvalidBucketState"))
	g.do(t, "PUT", "/box", map[string]string{"X-Amz-Bucket-Object-Lock-Enabled": "true"}).want(t, "bucket", 200)
	g.do(t, "GET", "/box?versioning", nil).want(t, "versions", 200, "<Status>Enabled</Status>")
	g.doBody(t, "PUT", "/box?versioning", fmt.Sprintf(versioned, "Suspended")).want(t, "suspend", 409, code("InvalidBucketState"))
	for name, c := range map[string][2]string{
		"mode": {fmt.Sprintf(rule, "X", "<Days>1</Days>"), "MalformedXML"}, "both": {fmt.Sprintf(rule, "GOVERNANCE", "<Days>1</Days><Years>1</Years>"), "MalformedXML"},
		"none": {fmt.Sprintf(rule, "GOVERNANCE", ""), "MalformedXML"}, "no days": {fmt.Sprintf(rule, "GOVERNANCE", "<Days>0</Days>"), "InvalidRetentionPeriod"},
	} {
		g.doBody(t, "PUT", "/box?object-lock", c[0]).want(t, name, 400, code(c[1]))
	}
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	later := until.Add(time.Hour).Format(time.RFC3339)
	put := g.send(t, "PUT", "/box/k", "", "x", map[string]string{"X-Amz-Object-Lock-Mode": "GOVERNANCE", "X-Amz-Object-Lock-Retain-Until-Date": until.Format(time.RFC3339)})
	put.want(t, "put", 200)
	path := "/box/k?versionId=" + put.header.Get("X-Amz-Version-Id")
	if head := g.do(t, "HEAD", path, nil); head.header.Get("X-Amz-Object-Lock-Mode") != "GOVERNANCE" || head.header.Get("X-Amz-Object-Lock-Retain-Until-Date") == "" {
		t.Errorf("head: %v", head.header)
	}
	retention := strings.Replace(path, "?", "?retention&", 1)
	g.do(t, "GET", retention, nil).want(t, "retention", 200, "<Mode>GOVERNANCE</Mode>")
	g.do(t, "DELETE", path, nil).want(t, "delete", 403, code("AccessDenied"))
	g.do(t, "DELETE", "/box/k", nil).want(t, "a marker", 204)
	longer := "<Retention><Mode>%s</Mode><RetainUntilDate>%s</RetainUntilDate></Retention>"
	g.doBody(t, "PUT", retention, fmt.Sprintf(longer, "GOVERNANCE", later)).want(t, "longer", 200)
	g.doBody(t, "PUT", retention, fmt.Sprintf(longer, "GOVERNANCE", until.Format(time.RFC3339))).want(t, "shorter", 403, code("AccessDenied"))
	g.send(t, "PUT", retention, "", fmt.Sprintf(longer, "GOVERNANCE", until.Format(time.RFC3339)), map[string]string{"X-Amz-Bypass-Governance-Retention": "true"}).want(t, "shorter, bypassed", 200)
	g.doBody(t, "PUT", retention, fmt.Sprintf(longer, "COMPLIANCE", until.Format(time.RFC3339))).want(t, "compliance", 200)
	g.do(t, "DELETE", path, map[string]string{"X-Amz-Bypass-Governance-Retention": "true"}).want(t, "compliance, bypassed", 403)
	g.doBody(t, "PUT", retention, fmt.Sprintf(longer, "GOVERNANCE", "2001-01-01T00:00:00Z")).want(t, "in the past", 400)

	held := g.send(t, "PUT", "/box/held", "", "x", map[string]string{"X-Amz-Object-Lock-Legal-Hold": "ON"})
	path = "/box/held?versionId=" + held.header.Get("X-Amz-Version-Id")
	hold := strings.Replace(path, "?", "?legal-hold&", 1)
	g.do(t, "GET", hold, nil).want(t, "legal hold", 200, "<Status>ON</Status>")
	g.do(t, "DELETE", path, map[string]string{"X-Amz-Bypass-Governance-Retention": "true"}).want(t, "held", 403)
	g.doBody(t, "PUT", hold, "<LegalHold><Status>OFF</Status></LegalHold>").want(t, "release", 200)
	g.do(t, "DELETE", path, nil).want(t, "released", 204)

	long := g.send(t, "PUT", "/box/long", "", "x", map[string]string{"X-Amz-Object-Lock-Mode": "COMPLIANCE", "X-Amz-Object-Lock-Retain-Until-Date": "2300-01-01T00:00:00Z"})
	path = "/box/long?versionId=" + long.header.Get("X-Amz-Version-Id")
	g.do(t, "GET", strings.Replace(path, "?", "?retention&", 1), nil).want(t, "beyond 64 bits of nanoseconds", 200, "<RetainUntilDate>2300-01-01T00:00:00.000Z<")
	g.do(t, "DELETE", path, nil).want(t, "locked until then", 403)

	g.doBody(t, "PUT", "/box?object-lock", fmt.Sprintf(rule, "GOVERNANCE", "<Days>1</Days>")).want(t, "default", 200)
	g.do(t, "GET", "/box?object-lock", nil).want(t, "default", 200, "<Days>1</Days>")
	auto := g.doBody(t, "PUT", "/box/auto", "x")
	path = "/box/auto?versionId=" + auto.header.Get("X-Amz-Version-Id")
	g.do(t, "DELETE", path, nil).want(t, "by default", 403)
	g.do(t, "DELETE", path, map[string]string{"X-Amz-Bypass-Governance-Retention": "true"}).want(t, "bypassed", 204)
	for name, header := range map[string]map[string]string{
		"mode alone": {"X-Amz-Object-Lock-Mode": "GOVERNANCE"}, "past": {"X-Amz-Object-Lock-Mode": "GOVERNANCE", "X-Amz-Object-Lock-Retain-Until-Date": "2001-01-01T00:00:00Z"},
		"no mode": {"X-Amz-Object-Lock-Mode": "X", "X-Amz-Object-Lock-Retain-Until-Date": later}, "hold": {"X-Amz-Object-Lock-Legal-Hold": "MAYBE"},
	} {
		g.do(t, "PUT", "/box/bad", header).want(t, name, 400, code("InvalidArgument"))
	}
}
