package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"lodge/gateway"
	"lodge/gateway/api"
)

// Health returns the state of the daemon.
func (c *Client) Health(ctx context.Context) (api.Health, error) {
	var h api.Health
	return h, c.call(ctx, http.MethodGet, "/v1/health", nil, &h)
}

// Doctor examines the host.
func (c *Client) Doctor(ctx context.Context) ([]api.Finding, error) {
	var findings []api.Finding
	err := c.call(ctx, http.MethodGet, "/v1/doctor", nil, &findings)
	return findings, err
}

// List returns all VMs, ordered by name.
func (c *Client) List(ctx context.Context) ([]api.VM, error) {
	var all []api.VM
	err := c.call(ctx, http.MethodGet, "/v1/vms", nil, &all)
	return all, err
}

// Show returns one VM.
func (c *Client) Show(ctx context.Context, name string) (api.VM, error) {
	return c.infoOf(ctx, http.MethodGet, name, "", nil)
}

// Start starts a VM.
func (c *Client) Start(ctx context.Context, name string) (api.VM, error) {
	return c.infoOf(ctx, http.MethodPost, name, "/start", nil)
}

// Stop stops a VM; force ends it without asking the guest.
func (c *Client) Stop(ctx context.Context, name string, force bool) (api.VM, error) {
	return c.infoOf(ctx, http.MethodPost, name, "/stop", StopRequest{Force: force})
}

// Restart stops a VM and starts it.
func (c *Client) Restart(ctx context.Context, name string) (api.VM, error) {
	return c.infoOf(ctx, http.MethodPost, name, "/restart", nil)
}

// Set changes the settings of a VM.
func (c *Client) Set(ctx context.Context, name string, settings api.Settings) (api.VM, error) {
	return c.infoOf(ctx, http.MethodPatch, name, "", settings)
}

func (c *Client) infoOf(ctx context.Context, method, name, verb string, in any) (api.VM, error) {
	var info api.VM
	err := c.onVM(ctx, method, name, verb, in, &info)
	return info, err
}

// Remove deletes a VM and all that is kept for it.
func (c *Client) Remove(ctx context.Context, name string) error {
	return c.onVM(ctx, http.MethodDelete, name, "", nil, nil)
}

// SSH returns what a log-in to a VM needs.
func (c *Client) SSH(ctx context.Context, name string) (gateway.SSHAccess, error) {
	var access gateway.SSHAccess
	err := c.onVM(ctx, http.MethodGet, name, "/ssh", nil, &access)
	return access, err
}

// Changes returns what was changed in a VM from one moment to another.
func (c *Client) Changes(ctx context.Context, name string, q gateway.ChangesQuery) (gateway.Changes, error) {
	var changes gateway.Changes
	query := url.Values{"from": {q.From}, "to": {q.To}, "text": {strconv.FormatBool(q.Text)}}
	err := c.onVM(ctx, http.MethodGet, name, "/changes?"+query.Encode(), nil, &changes)
	return changes, err
}

// History returns what was changed in a VM from checkpoint to checkpoint, and from the last to now.
func (c *Client) History(ctx context.Context, name string, last int) ([]gateway.HistoryStep, error) {
	var steps []gateway.HistoryStep
	err := c.onVM(ctx, http.MethodGet, name, "/history?last="+strconv.Itoa(last), nil, &steps)
	return steps, err
}

// Recipe returns cloud-init user data that makes the changes of a VM to a new one. With objects it fetches
// large files, by URLs in place of their Links.
func (c *Client) Recipe(ctx context.Context, name string, objects bool) (gateway.Recipe, error) {
	var recipe gateway.Recipe
	err := c.onVM(ctx, http.MethodGet, name, "/recipe?objects="+strconv.FormatBool(objects), nil, &recipe)
	return recipe, err
}

// RecipeFile reads a large file of a recipe. Reads fail if it has changed since. The caller closes it.
func (c *Client) RecipeFile(ctx context.Context, name string, o gateway.RecipeObject) (io.ReadCloser, error) {
	query := url.Values{"path": {o.Path}, "bytes": {strconv.FormatInt(o.Bytes, 10)}, "sha256": {o.SHA256}}
	return c.open(ctx, name, "/recipe/file?"+query.Encode())
}

// Login returns a link that logs person in to the VM's pages, once. The empty person is the owner.
func (c *Client) Login(ctx context.Context, name, person string) (string, error) {
	var login LoginAnswer
	err := c.onVM(ctx, http.MethodPost, name, "/login", LoginRequest{Person: person}, &login)
	return login.URL, err
}

// LoginHost returns a link that logs person in at the host's own domain, once. The empty person is the
// owner.
func (c *Client) LoginHost(ctx context.Context, person string) (string, error) {
	var login LoginAnswer
	err := c.call(ctx, http.MethodPost, "/v1/login", LoginRequest{Person: person}, &login)
	return login.URL, err
}

// Mail lists a VM's newest messages, at most limit (1 to 10000).
func (c *Client) Mail(ctx context.Context, name string, limit int) ([]gateway.Message, error) {
	var messages []gateway.Message
	err := c.onVM(ctx, http.MethodGet, name, "/mail?limit="+strconv.Itoa(limit), nil, &messages)
	return messages, err
}

// Message reads one message as it is stored. The caller closes it.
func (c *Client) Message(ctx context.Context, name, queueID string) (io.ReadCloser, error) {
	if queueID == "" || queueID == "." || queueID == ".." {
		return nil, gateway.Invalid("not a queue id: %q", queueID).WithHint("lodge mail %s lists them.", name)
	}
	return c.open(ctx, name, "/mail/"+url.PathEscape(queueID))
}

// Log reads the output of a VM's console; with follow it continues until ctx ends. The caller closes it.
func (c *Client) Log(ctx context.Context, name string, follow bool) (io.ReadCloser, error) {
	return c.open(ctx, name, "/log?follow="+strconv.FormatBool(follow))
}

// RootPEM returns the certificate of the daemon's CA.
func (c *Client) RootPEM(ctx context.Context) ([]byte, error) {
	resp, err := c.send(ctx, http.MethodGet, "/v1/ca.pem", nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	pem, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, garbled(ctx, err)
	}
	return pem, nil
}

func (c *Client) open(ctx context.Context, name, verb string) (io.ReadCloser, error) {
	path, err := vmPath(name, verb)
	if err != nil {
		return nil, err
	}
	resp, err := c.send(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Console opens a VM's serial console: raw bytes both ways, until either side closes it.
func (c *Client) Console(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	path, err := vmPath(name, "/console")
	if err != nil {
		return nil, err
	}
	resp, err := c.send(ctx, http.MethodGet, path, nil, http.Header{"Connection": {"Upgrade"}, "Upgrade": {consoleProtocol}})
	if err != nil {
		return nil, err
	}
	stream, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, errors.Join(garbled(ctx, fmt.Errorf("no console: %s", resp.Status)), resp.Body.Close())
	}
	return stream, nil
}

// New makes a VM and starts it. Ending ctx removes it again.
func (c *Client) New(ctx context.Context, spec gateway.Spec, progress func(gateway.Progress)) (api.VM, error) {
	return vmOf(c.stream(ctx, http.MethodPost, "/v1/vms", spec, progress))
}

// Wait returns when a VM has met a condition.
func (c *Client) Wait(ctx context.Context, name string, until api.Condition, progress func(gateway.Progress)) (api.VM, error) {
	path, err := vmPath(name, "/wait?for="+url.QueryEscape(string(until)))
	if err != nil {
		return api.VM{}, err
	}
	return vmOf(c.stream(ctx, http.MethodGet, path, nil, progress))
}

// Images lists the base images and the templates.
func (c *Client) Images(ctx context.Context) (api.ImageList, error) {
	var list api.ImageList
	err := c.call(ctx, http.MethodGet, "/v1/images", nil, &list)
	return list, err
}

// BuildImage makes a base image; the empty name is the default one. Ending ctx ends the build.
func (c *Client) BuildImage(ctx context.Context, name string, progress func(gateway.Progress)) (api.Image, error) {
	last, err := c.stream(ctx, http.MethodPost, "/v1/images", ImageRequest{Name: name}, progress)
	if err != nil {
		return api.Image{}, err
	}
	if last.Image == nil {
		return api.Image{}, garbled(ctx, errors.New("it has no image"))
	}
	return *last.Image, nil
}

// RemoveTemplate removes a template.
func (c *Client) RemoveTemplate(ctx context.Context, id string) error {
	if id == "" || id == "." || id == ".." { // they would make another path
		return gateway.Errorf(gateway.KindNotFound, "there is no template %q", id).WithHint("lodge image ls lists the templates.")
	}
	return c.call(ctx, http.MethodDelete, "/v1/templates/"+url.PathEscape(id), nil, nil)
}

// vmOf is the VM that a stream ended with.
func vmOf(last Event, err error) (api.VM, error) {
	if err != nil {
		return api.VM{}, err
	}
	if last.VM == nil {
		return api.VM{}, garbled(context.Background(), errors.New("it has no VM"))
	}
	return *last.VM, nil
}

// stream reads Events up to the last, which it returns.
func (c *Client) stream(ctx context.Context, method, path string, in any, progress func(gateway.Progress)) (Event, error) {
	resp, err := c.send(ctx, method, path, in, nil)
	if err != nil {
		return Event{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	events := json.NewDecoder(bufio.NewReader(resp.Body))
	for {
		var event Event
		if err := events.Decode(&event); err != nil {
			return Event{}, garbled(ctx, err)
		}
		switch {
		case event.Error != nil:
			return Event{}, event.Error
		case event.Progress != nil:
			progress(event.Progress.Step())
		default:
			return event, nil
		}
	}
}
