package cli

import (
	"context"
	"fmt"
	"io"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"lodge/gateway"
	"lodge/gateway/api"
)

type mailSetCmd struct {
	named

	Receive        string   `help:"Whether mail is received: off refuses all." placeholder:"on|off"`
	Allow          string   `help:"Who may write, in place of those before: addresses and @domains, such as ada@example.com,@example.org; or anyone." placeholder:"SENDERS"`
	Alias          []string `help:"Add a name, such as shop, whose mail is the VM's too. Of an owner of the host also an address at the domain, such as sales@." placeholder:"NAME"`
	RemoveAlias    []string `help:"Remove an alias." placeholder:"NAME"`
	Quota          string   `help:"The most that the VM's mail may take on the host, such as 2GiB; or none." placeholder:"SIZE"`
	Keep           string   `help:"How long mail is kept on the host once it is in the VM, such as 90d; or forever." placeholder:"TIME"`
	Wake           string   `help:"Whether a new message starts the stopped VM." placeholder:"on|off"`
	Route          string   `help:"The way of the mail into the VM: auto, maildir, smtp, lmtp, http://PORT/PATH or s3://BUCKET/PREFIX." placeholder:"ROUTE"`
	SendTo         string   `help:"To whom the VM may send mail outside of its host: its people and who wrote to it (known), anyone, or nobody. An owner of the host sets it." placeholder:"known|anyone|nobody"`
	RefuseRejected string   `help:"Whether mail is refused that the DMARC policy of its sender rejects." placeholder:"on|off"`
}

// Help is the text below the usage.
func (*mailSetCmd) Help() string {
	return "Without a flag, the settings are shown. A change is made as a whole or not at all.\n\n" +
		"Mail that is not received, or whose sender is not allowed, is refused with \"550 5.1.1 User unknown\", as for a VM that does not exist. " +
		"--allow reads the sender of the envelope, which anybody can forge who knows an allowed address; with it, bounces are refused too. " +
		"An address of lodge mail address goes before --allow.\n\n" +
		"With the alias shop, mail to anything@shop.DOMAIN is the VM's, with sales@ that to sales@DOMAIN. An alias is one VM's, and no other VM can have its name.\n\n" +
		"With --wake on, a message that is accepted while the VM is stopped starts it; one that waited already, or that comes during the stop, does not. " +
		"Starts by mail are 10 s apart at least.\n\n" +
		"The route maildir is ~/Maildir of the user lodge, over SSH; auto is the same. smtp and lmtp are the VM's own server on port 25 or 24 of its address, and " +
		"http://8080/mail is a POST to port 8080. Mail waits until the VM takes it.\n\n" +
		"A message that would go above --quota is refused for the time being (452): its sender tries again for some days. " +
		"After the time of --keep, mail is removed from the host once it is in the VM; what is in the VM stays there.\n\n" +
		"A message to several VMs is refused by --refuse-rejected only if all of them want that."
}

// Run changes settings of a VM's mail, or shows them.
func (c *mailSetCmd) Run(ctx context.Context, a *app) error {
	change, err := c.change()
	if err != nil {
		return err
	}
	var settings api.MailSettings
	if reflect.ValueOf(change).IsZero() {
		settings, err = a.client.MailSettings(ctx, c.Name)
	} else {
		settings, err = a.client.SetMail(ctx, c.Name, change)
	}
	if err != nil {
		return err
	}
	return a.print(settings, func(w io.Writer) { describeMail(w, settings) })
}

// change reads the flags.
func (c *mailSetCmd) change() (change api.MailChange, err error) {
	change.AddAliases, change.RemoveAliases = c.Alias, c.RemoveAlias
	for _, flag := range []struct {
		name, text string
		to         **bool
	}{{"receive", c.Receive, &change.Receive}, {"wake", c.Wake, &change.Wake}, {"refuse-rejected", c.RefuseRejected, &change.RefuseRejected}} {
		if *flag.to, err = parseSwitch(flag.name, flag.text); err != nil {
			return change, err
		}
	}
	if c.SendTo != "" {
		change.SendTo = &c.SendTo
	}
	if change.QuotaBytes, err = parseQuota(c.Quota); err != nil {
		return change, err
	}
	if change.KeepSeconds, err = parseKeep(c.Keep); err != nil {
		return change, err
	}
	if c.Route != "" {
		change.Route = &c.Route
	}
	change.AllowFrom, err = parseAllow(c.Allow)
	return change, err
}

// parseSwitch and the like return nil for a flag that is not given.
func parseSwitch(flag, text string) (*bool, error) {
	switch on := text == "on"; {
	case text == "":
		return nil, nil
	case !on && text != "off":
		return nil, gateway.Invalid("--%s %.100q is neither on nor off", flag, text)
	default:
		return &on, nil
	}
}

func parseQuota(text string) (*int64, error) {
	var bytes int64
	switch text {
	case "":
		return nil, nil // not given
	case "none":
	default:
		n, err := humanize.ParseBytes(text)
		if err != nil || n == 0 || n > math.MaxInt64 {
			return nil, gateway.Invalid("not a size: %.100q", text).WithHint("Sizes are 500MiB, 2GiB and the like, or none.")
		}
		bytes = int64(n)
	}
	return &bytes, nil
}

func parseKeep(text string) (*int64, error) {
	var seconds int64
	switch text {
	case "":
		return nil, nil // not given
	case "forever":
	default:
		keep, err := parseTime(text)
		if err != nil || keep < time.Second {
			return nil, gateway.Invalid("not a time: %.100q", text).WithHint("12h and 90d are times, or forever.")
		}
		seconds = int64(keep / time.Second)
	}
	return &seconds, nil
}

func parseAllow(text string) (*[]string, error) {
	senders := []string{}
	switch text {
	case "":
		return nil, nil // not given
	case "anyone":
	default:
		if senders = splitList(text); len(senders) == 0 { // which would be anyone
			return nil, gateway.Invalid("expected who may write after --allow").WithHint("Examples: --allow ada@example.com,@example.org; --allow anyone")
		}
	}
	return &senders, nil
}

// describeMail writes the settings as a table, by their flags.
func describeMail(w io.Writer, s api.MailSettings) {
	onOff := map[bool]string{true: "on", false: "off"}
	quota, keep, allow := "none", "forever", "anyone"
	if s.QuotaBytes > 0 {
		quota = size(s.QuotaBytes)
	}
	if s.KeepSeconds > 0 {
		keep = days(s.KeepSeconds)
	}
	if len(s.AllowFrom) > 0 {
		allow = strings.Join(s.AllowFrom, ", ")
	}
	host := strings.TrimPrefix(s.Domain, s.VM+".")
	row(w, "mail", "anything@"+s.Domain)
	for _, alias := range s.Aliases {
		if strings.HasSuffix(alias, "@") {
			row(w, "alias", alias+host)
		} else {
			row(w, "alias", "anything@"+alias+"."+host)
		}
	}
	for _, domain := range s.OwnDomains {
		row(w, "own domain", "anything@"+domain)
	}
	row(w, "receive", onOff[s.Receive])
	row(w, "allow", allow)
	row(w, "quota", quota)
	row(w, "keep", keep)
	row(w, "wake", onOff[s.Wake])
	row(w, "route", s.Route)
	row(w, "send-to", s.SendTo)
	row(w, "refuse-rejected", onOff[s.RefuseRejected])
	if n := len(s.Addresses); n > 0 {
		row(w, "addresses", fmt.Sprintf("%d, see: lodge mail address ls %s", n, s.VM))
	}
}

// days writes a number of seconds as flags take it.
func days(seconds int64) string {
	const day = 24 * 60 * 60
	if seconds%day == 0 {
		return fmt.Sprintf("%dd", seconds/day)
	}
	return (time.Duration(seconds) * time.Second).String()
}
