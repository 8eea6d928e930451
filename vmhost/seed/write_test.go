package seed_test

import (
	"flag"
	"net/netip"
	"os"
	"testing"

	"lodge/gateway"
	"lodge/vmhost/seed"
)

func TestTmpWrite(t *testing.T) {
	dir := os.Getenv("SEEDDIR")
	if dir == "" {
		t.Skip()
	}
	rd := func(n string) string { b, err := os.ReadFile(dir + "/" + n); if err != nil { t.Fatal(err) }; return string(b) }
	id, _ := gateway.ParseID("7f8e0000-0000-4000-8000-000000000001")
	g := seed.Guest{Machine: gateway.Machine{VM: gateway.VM{ID: id, Number: 1, Name: "hello", Addr: netip.MustParseAddr("10.213.0.2")}, HostKey: rd("hk.pub")[:len(rd("hk.pub"))-1]},
		Domain: "lodge.localhost", HostKeyPEM: []byte(rd("hk")), AuthorizedKey: rd("key.pub")[:len(rd("key.pub"))-1], RootPEM: []byte(rd("root.pem")), UserData: os.Getenv("USERDATA")}
	if err := seed.Write(dir+"/seed.iso", g); err != nil { t.Fatal(err) }
	_ = flag.Args
}
