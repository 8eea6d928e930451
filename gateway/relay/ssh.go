package relay

import (
	"fmt"
	"os"

	"golang.org/x/crypto/ssh"
)

// SSHConfig is how the host logs in to a guest: with the private key of keyFile (OpenSSH's format), which
// is read anew each time, and only to a server that has hostKey (a line of authorized_keys).
func SSHConfig(user, keyFile, hostKey string) (*ssh.ClientConfig, error) {
	pem, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("read SSH key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		return nil, fmt.Errorf("parse SSH key: %w", err)
	}
	pinned, _, _, _, err := ssh.ParseAuthorizedKey([]byte(hostKey))
	if err != nil {
		return nil, fmt.Errorf("parse the VM's host key: %w", err)
	}
	algorithms := []string{pinned.Type()}
	if pinned.Type() == ssh.KeyAlgoRSA {
		algorithms = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.FixedHostKey(pinned), HostKeyAlgorithms: algorithms,
	}, nil
}
