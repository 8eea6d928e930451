package storage

import (
	"encoding/xml"
	"io"
	"net/http"

	"lodge/gateway"
)

// setACL answers a PUT of an access control list. Everything has one list, that of the owner alone,
// and setting it is no error: s3cmd does so after each copy. refuse has checked the headers.
func setACL(r *http.Request, vm gateway.Identity) error {
	raw, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err != nil {
		return errorf(http.StatusBadRequest, "IncompleteBody", "The body could not be read to its end.")
	}
	var list struct {
		Grantees []struct {
			ID    string `xml:"ID"`
			URI   string `xml:"URI"`
			Email string `xml:"EmailAddress"`
		} `xml:"AccessControlList>Grant>Grantee"`
	}
	if len(raw) > 0 && xml.Unmarshal(raw, &list) != nil {
		return errorf(http.StatusBadRequest, "MalformedACLError", "The body is not the XML of an access control list.")
	}
	for _, g := range list.Grantees {
		if g.ID != vm.ID.String() || g.URI != "" || g.Email != "" {
			return errNoACL()
		}
	}
	return nil
}

func errNoACL() error {
	return errorf(http.StatusBadRequest, "AccessControlListNotSupported", "Access control lists are not implemented: buckets are the VM's alone.")
}
