package engine

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/versity/versitygw/auth"

	"lodge/gateway"
)

const rootAccount = "lodge-root"

// accounts is versitygw's IAM service. Each VM is one account, whose access key is the VM's UUID.
// The secrets never leave the process. To versitygw, accounts are administrators: the namespace
// decides what a VM can see, not versitygw's access lists.
type accounts struct{ key []byte }

var _ auth.IAMService = (*accounts)(nil)

var errFixedAccounts = errors.New("accounts follow the VMs and cannot be changed")

func newAccounts() *accounts { return &accounts{key: []byte(randomSecret())} }

func (a *accounts) secret(access string) string {
	mac := hmac.New(sha256.New, a.key)
	mac.Write([]byte(access))
	return hex.EncodeToString(mac.Sum(nil))
}

// GetUserAccount implements auth.IAMService.
func (a *accounts) GetUserAccount(access string) (auth.Account, error) {
	if _, err := gateway.ParseID(access); err != nil {
		return auth.Account{}, auth.ErrNoSuchUser
	}
	return auth.Account{Access: access, Secret: a.secret(access), Role: auth.RoleAdmin}, nil
}

// ResolveAccounts implements auth.IAMService: access lists have no other account.
func (a *accounts) ResolveAccounts(keys []string) ([]string, error) { return keys, nil }

// CreateAccount implements auth.IAMService.
func (a *accounts) CreateAccount(auth.Account) error { return errFixedAccounts }

// UpdateUserAccount implements auth.IAMService.
func (a *accounts) UpdateUserAccount(string, auth.MutableProps) error { return errFixedAccounts }

// DeleteUserAccount implements auth.IAMService.
func (a *accounts) DeleteUserAccount(string) error { return errFixedAccounts }

// ListUserAccounts implements auth.IAMService.
func (a *accounts) ListUserAccounts() ([]auth.Account, error) { return nil, errFixedAccounts }

// Shutdown implements auth.IAMService.
func (a *accounts) Shutdown() error { return nil }
