package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"
	"github.com/posener/complete"

	"lodge/gateway/control"
)

// completionTimeout is how long a shell waits for names.
const completionTimeout = time.Second

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is the text below the usage.
func (*completionCmd) Help() string {
	return "make up installs it. Elsewhere, for bash, add this line to ~/.bashrc: source <(lodge completion bash)"
}

// The first and last line of the code for zsh, so that it can also be a file _lodge in fpath. zsh
// then runs the file as a function at the first completion, which the last line answers.
const (
	zshFirst = "#compdef lodge\n"
	zshLast  = "[[ ${funcstack[1]} != _lodge ]] || eval \"$_comps[lodge]\"\n"
)

// Run prints the code that makes a shell ask lodge for completions.
func (c *completionCmd) Run(a *app, parsed *kong.Context) error {
	code := kongcompletion.Completion{Shell: c.Shell, Code: true}
	if c.Shell != "zsh" {
		return code.Run(parsed)
	}
	_, first := io.WriteString(a.out, zshFirst)
	err := code.Run(parsed)
	_, last := io.WriteString(a.out, zshLast)
	return errors.Join(first, err, last)
}

// complete answers a shell that asks for completions, in the variable COMP_LINE. It reports whether
// one did.
func (a *app) complete(ctx context.Context, parser *kong.Kong) (done bool, err error) {
	words := strings.Fields(os.Getenv("COMP_LINE"))
	if len(words) == 0 {
		return false, nil
	}
	names := predictor(ctx, words, vmNames)
	command, err := kongcompletion.Command(parser, kongcompletion.WithPredictor("vm", names),
		kongcompletion.WithPredictor("template", predictor(ctx, words, templateIDs)),
		kongcompletion.WithPredictor("forward", predictor(ctx, words, forwardedPorts)),
		kongcompletion.WithPredictor("person", predictor(ctx, words, addresses)), kongcompletion.WithPredictor("team", predictor(ctx, words, teamNames)))
	if err != nil {
		return false, err
	}
	withDefaults(parser.Model.Node, &command)
	for _, verb := range parser.Model.Children {
		if last := len(verb.Positional) - 1; last >= 0 && verb.Positional[last].IsCumulative() && verb.Positional[last].Tag.Get("predictor") == "vm" {
			sub := command.Sub[verb.Name]
			sub.Args = names // for the second VM, too: kong-completion offers values for the first one only
			command.Sub[verb.Name] = sub
		}
	}
	completer := complete.New(parser.Model.Name, command)
	completer.Out = a.out
	return completer.Complete(), nil
}

// withDefaults lets a group of verbs take the arguments and flags of its default verb, as kong does.
func withDefaults(node *kong.Node, command *complete.Command) {
	for _, child := range node.Children {
		if sub, ok := command.Sub[child.Name]; ok {
			withDefaults(child, &sub)
			command.Sub[child.Name] = sub
		}
	}
	if verb := node.DefaultCmd; verb != nil {
		command.Args, command.Flags = command.Sub[verb.Name].Args, command.Sub[verb.Name].GlobalFlags
	}
}

// predictor completes with those of list that are not among words yet. Without lodged there are
// none.
func predictor(ctx context.Context, words []string, list func(context.Context, *control.Client) []string) complete.Predictor {
	return complete.PredictFunc(func(complete.Args) []string {
		ctx, cancel := context.WithTimeout(ctx, completionTimeout)
		defer cancel()
		all := list(ctx, control.NewClient(socketIn(words)))
		return slices.DeleteFunc(all, func(name string) bool { return slices.Contains(words, name) })
	})
}

// socketIn is the socket that words name: the flags are not parsed here.
func socketIn(words []string) string {
	socket := control.DefaultSocket
	for i, word := range words {
		if value, ok := strings.CutPrefix(word, "--socket="); ok {
			socket = value
		} else if word == "--socket" && i+1 < len(words) {
			socket = words[i+1]
		}
	}
	return socket
}

// vmNames and the like ignore errors, which a shell has no place to show.
func vmNames(ctx context.Context, client *control.Client) (names []string) {
	all, _ := client.List(ctx)
	for _, v := range all {
		names = append(names, v.Name)
	}
	return names
}

func templateIDs(ctx context.Context, client *control.Client) (ids []string) {
	list, _ := client.Images(ctx)
	for _, t := range list.Templates {
		ids = append(ids, t.ID)
	}
	return ids
}

func forwardedPorts(ctx context.Context, client *control.Client) (ports []string) {
	all, _ := client.Forwards(ctx)
	for _, f := range all {
		ports = append(ports, f.String())
	}
	return ports
}

func addresses(ctx context.Context, client *control.Client) (mails []string) {
	all, _ := client.People(ctx)
	for _, p := range all {
		mails = append(mails, p.Mail)
	}
	return mails
}

func teamNames(ctx context.Context, client *control.Client) (names []string) {
	all, _ := client.Teams(ctx)
	for _, t := range all {
		names = append(names, t.Name)
	}
	return names
}
