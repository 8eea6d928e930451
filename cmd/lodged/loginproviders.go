package main

import (
	"bytes"
	"os"

	"lodge/gateway"
	"lodge/https/login/oidc"
)

// loginProviders are the tables [[login_provider]]: providers of OpenID Connect through which people log
// in.
type loginProviders []struct {
	Name             string   `toml:"name"`
	Issuer           string   `toml:"issuer"`
	ClientID         string   `toml:"client_id"`
	ClientSecretFile string   `toml:"client_secret_file"` // none for a public client
	Domains          []string `toml:"domains"`            // of the mail addresses that may log in; none: all
}

// read returns the providers with their secrets.
func (l loginProviders) read() ([]oidc.Provider, error) {
	var all []oidc.Provider
	for _, table := range l {
		p := oidc.Provider{Name: table.Name, Issuer: table.Issuer, ClientID: table.ClientID, Domains: table.Domains}
		if table.ClientSecretFile != "" {
			secret, err := os.ReadFile(table.ClientSecretFile)
			if err != nil {
				return nil, gateway.Invalid("the secret of login provider %q cannot be read: %v", table.Name, err).
					WithHint("client_secret_file names a file with the secret alone.")
			}
			p.Secret = string(bytes.TrimSpace(secret))
		}
		all = append(all, p)
	}
	return all, oidc.Check(all)
}
