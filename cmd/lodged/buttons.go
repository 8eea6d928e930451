package main

import (
	"context"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/people"
)

// buttons is https.Verbs: the API, as people use it by buttons of pages. It works once all parts are
// assembled.
type buttons struct {
	parts    *parts
	requests *people.Requests
}

func (b buttons) as(person gateway.Principal) api.Session {
	return b.parts.verbs.As(api.PersonCaller(person))
}

func (b buttons) Start(ctx context.Context, by gateway.Principal, vm gateway.VM) error {
	_, err := b.as(by).Start(ctx, vm.Name)
	return err
}

func (b buttons) Requests(ctx context.Context, by gateway.Principal) (all []gateway.AccessRequest, err error) {
	shown, err := b.as(by).Requests(ctx)
	for _, one := range shown {
		if q, ok := b.requests.ByID(one.ID); ok { // else it was answered a moment ago
			all = append(all, q)
		}
	}
	return all, err
}

func (b buttons) Approve(ctx context.Context, by gateway.Principal, id string) error {
	_, err := b.as(by).Approve(ctx, id)
	return err
}

func (b buttons) Deny(ctx context.Context, by gateway.Principal, id string) error {
	return b.as(by).Deny(ctx, id)
}
