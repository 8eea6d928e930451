package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/control"
)

type shareCmd struct {
	named

	What []string `arg:"" help:"private, public, link, people ada@example.com,@example.org or team devs; before it, a bucket as s3:photos. Without it, all that opens the VM is shown." optional:"" name:"who"`
	Rev  uint64   `help:"Only if nobody has changed who may open the VM since this revision, which lodge share VM --json shows." placeholder:"N"`
	Port uint16   `help:"The port; without it, the VM's page. It may also stand before who." placeholder:"N"`

	Expires string `default:"7d" help:"With link: how long it is valid, such as 12h or 30d; at most 366d." placeholder:"TIME"`
	Uses    int    `default:"1000" help:"With link: how many browsers it lets in, at most 1000." placeholder:"N"`
}

// Help is the text below the usage.
func (*shareCmd) Help() string {
	return "A share opens exactly one port, in place of what was shared there before. private: the owner, and who has a grant (lodge grant). " +
		"people: those with these addresses; @example.org is everyone with an address there. team: the members of a team. " +
		"link: whoever has a link, which is printed; each time another one. public: anyone.\n\n" +
		"lodge share blog s3:photos public opens a bucket in place of a port: to list and to read, at https://photos.blog.s3.DOMAIN. Who may use the VM also uploads there.\n\n" +
		"People need a login: lodge person link prints one. What a change no longer allows ends at once, open streams included."
}

// Run sets who can open a page, or shows it.
func (c *shareCmd) Run(ctx context.Context, a *app) error {
	if len(c.What) == 0 && c.Port == 0 {
		return a.showAccess(ctx, c.Name)
	}
	share, err := parseShare(c.Port, c.What)
	if err != nil {
		return err
	}
	if share.Visibility == gateway.Link {
		return c.link(ctx, a, share)
	}
	info, err := a.client.Share(ctx, c.Name, api.Sharing{Share: share, Rev: c.Rev})
	if err != nil {
		return err
	}
	for _, set := range slices.Concat(info.Shares, info.Buckets) {
		if set.Port == share.Port && set.Bucket == share.Bucket {
			share = set // as it is kept
		}
	}
	domains := []string{} // an empty list is [] in JSON
	for _, d := range info.Domains {
		if share.Bucket == "" && d.Port == share.Port && !d.Passthrough { // else everyone may open it
			domains = append(domains, d.Name)
		}
	}
	answer := map[string]any{
		"name": c.Name, "port": share.Port, "visibility": share.Visibility, "with": append([]string{}, share.With...), "url": info.URL, "domains": domains,
	}
	if share.Bucket != "" {
		answer["bucket"] = share.Bucket
	}
	if share.Bucket != "" && share.Visibility != gateway.Public {
		by, err := a.opened(ctx, c.Name, share.Bucket)
		if err != nil {
			defer a.warnUnread(c.Name, share.Bucket, err)
		} else if answer["open"] = append([]string{}, by...); !a.JSON {
			defer a.warnOpen(c.Name, share.Bucket, by)
		}
	}
	return a.print(answer, func(w io.Writer) {
		for _, name := range append([]string{info.URL}, domains...) {
			row(w, name+" is "+openTo(share)+".")
		}
	})
}

// link shares a port by link, and prints one.
func (c *shareCmd) link(ctx context.Context, a *app, share api.Share) error {
	life, err := parseLife(c.Expires)
	if err != nil {
		return err
	}
	if c.Uses < 1 || c.Uses > gateway.MaxPassUses { // before the port is open
		return gateway.Invalid("a link for %d browsers", c.Uses).WithHint("It lets in 1 to %d.", gateway.MaxPassUses)
	}
	if _, err := a.client.Share(ctx, c.Name, api.Sharing{Share: share, Rev: c.Rev}); err != nil {
		return err
	}
	made, err := a.client.NewLink(ctx, c.Name, control.LinkRequest{Port: share.Port, Bucket: share.Bucket, MaxUses: c.Uses, LifeSeconds: int64(life / time.Second)})
	if err != nil {
		return err
	}
	return a.print(made, func(w io.Writer) { row(w, made.URL) })
}

// openTo names who may open a port.
func openTo(s api.Share) string {
	switch s.Visibility {
	case gateway.People, gateway.Team:
		return "open to " + strings.Join(s.With, ", ")
	case gateway.Link:
		return strings.Join(append([]string{"link"}, s.With...), ", ")
	}
	return string(s.Visibility)
}

// parseShare reads "public", "8080 people ada@example.com,@example.org" and the like.
func parseShare(port uint16, words []string) (share api.Share, err error) {
	hint := "Examples: lodge share blog public; lodge share blog --port 8080 people ada@example.com,@example.org; lodge share blog team devs; lodge share blog s3:photos public"
	share.Port = port
	if len(words) > 0 {
		if bucket, ok := strings.CutPrefix(words[0], "s3:"); ok {
			if share.Bucket = bucket; bucket == "" || port != 0 {
				return api.Share{}, gateway.Invalid("expected a port, or a bucket as s3:NAME").WithHint("%s", hint)
			}
			words = words[1:]
		}
	}
	if share.Bucket == "" && port == 0 && len(words) > 1 && !isVisibility(words[0]) {
		if share.Port, err = gateway.ParsePort(words[0]); err != nil {
			return api.Share{}, err
		}
		words = words[1:]
	}
	if len(words) == 0 {
		return api.Share{}, gateway.Invalid("expected who may open the port").WithHint("%s", hint)
	}
	share.Visibility = gateway.Visibility(words[0])
	if !isVisibility(words[0]) {
		return api.Share{}, gateway.Invalid("not a visibility: %.100q", words[0]).WithHint("%s", hint)
	}
	for _, word := range words[1:] {
		share.With = append(share.With, splitList(word)...)
	}
	named := share.Visibility == gateway.People || share.Visibility == gateway.Team
	switch {
	case named && len(share.With) == 0:
		return api.Share{}, gateway.Invalid("expected whom to share with after %q", share.Visibility).WithHint("%s", hint)
	case !named && len(share.With) > 0:
		return api.Share{}, gateway.Invalid("expected nothing after %q", share.Visibility).WithHint("%s", hint)
	}
	return share, nil
}

// splitList splits at commas; empty parts are left out.
func splitList(text string) (all []string) {
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			all = append(all, part)
		}
	}
	return all
}

func isVisibility(word string) bool {
	switch gateway.Visibility(word) {
	case gateway.Private, gateway.People, gateway.Team, gateway.Link, gateway.Public:
		return true
	}
	return false
}

// showAccess shows all that opens a VM, and what strangers see.
func (a *app) showAccess(ctx context.Context, name string) error {
	access, err := a.client.Access(ctx, name)
	if err != nil {
		return err
	}
	return a.print(access, func(w io.Writer) {
		row(w, "WHAT", "OPEN TO", "A STRANGER SEES", "WHERE")
		for _, p := range access.Ports {
			row(w, portName(p.Port), strings.TrimPrefix(openTo(p.Share), "open to "), stranger(p), strings.Join(append([]string{p.URL}, p.Domains...), ", "))
			for _, domain := range p.Bypass {
				row(w, portName(p.Port), "everyone: TLS is passed through", "what the VM answers", domain)
			}
		}
		for _, b := range access.Buckets {
			row(w, "s3:"+b.Bucket, strings.TrimPrefix(openTo(b.Share), "open to "), stranger(b), b.URL)
		}
		for _, g := range access.Grants {
			row(w, "all ports", fmt.Sprintf("%s (%s)", g.Who, g.Level), "-", "-")
		}
		for _, p := range access.Links {
			row(w, opens(p), fmt.Sprintf("who has link %s (%d of %d uses)", p.ID, p.Uses, p.MaxUses), "-", "until "+day(p.Expires))
		}
		for _, p := range access.Tokens {
			row(w, opens(p), strings.TrimSpace("who has token "+p.ID+" "+p.Label), "-", "until "+day(p.Expires))
		}
		for _, q := range access.Requests {
			row(w, portName(q.Port), asks(q)+" asks for it", "-", "lodge request approve "+q.ID)
		}
		for _, f := range access.Forwards {
			row(w, fmt.Sprintf("port %d", f.VMPort), "whoever reaches the host's port", "what the VM answers", fmt.Sprintf("%s (%s)", at(f), f.Protocol))
		}
	})
}

func portName(port uint16) string {
	if port == gateway.DefaultPort {
		return "the page"
	}
	return fmt.Sprintf("port %d", port)
}

func stranger(p api.PortAccess) string {
	if p.Stranger == 0 {
		return p.Sees
	}
	return fmt.Sprintf("%d: %s", p.Stranger, p.Sees)
}
