package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"lodge/gateway"
	"lodge/gateway/people"
	"lodge/gateway/store"
)

// state is the host's state on disk: the lock, the database, and what is read from it.
type state struct {
	lock      *os.File
	store     *store.Store
	directory *gateway.Directory
	people    *people.Book
	requests  *people.Requests
	keyring   *gateway.Keyring
}

func openState(ctx context.Context, cfg Config) (*state, error) {
	if err := cfg.prepareDirs(); err != nil {
		return nil, err
	}
	lock, err := lockState(cfg.path("lock"))
	if err != nil {
		return nil, err
	}
	s := &state{lock: lock}
	if err := s.open(ctx, cfg); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *state) open(ctx context.Context, cfg Config) (err error) {
	if s.store, err = store.Open(ctx, cfg.path("lodge.db"), cfg.GuestNet); err != nil {
		return err
	}
	if s.directory, err = gateway.OpenDirectory(ctx, s.store); err != nil {
		return err
	}
	if s.people, err = people.Open(ctx, s.store.Shared(), cfg.Owner); err != nil {
		return err
	}
	if s.requests, err = people.OpenRequests(ctx, s.store.Shared(), time.Now); err != nil {
		return err
	}
	secret, err := s.store.KV().Secret(ctx, "s3")
	if err != nil {
		return fmt.Errorf("read the S3 secret: %w", err)
	}
	s.keyring = gateway.NewKeyring(secret, s.directory)
	return nil
}

// recordOwner records that the configuration names another owner than it did at the last start.
func (s *state) recordOwner(ctx context.Context, log *slog.Logger) error {
	return s.people.ConfiguredOwner(ctx, func(former, now people.Person) {
		if former.ID != 0 {
			gateway.Audit(ctx, log, gateway.EventOwnerFormer, slog.String("person", former.Mail), slog.String("role", string(former.Role)))
		}
		gateway.Audit(ctx, log, gateway.EventOwnerNamed, slog.String("person", now.Mail), slog.String("role", string(now.Role)))
	})
}

func (s *state) close() error {
	if s.store == nil {
		return s.lock.Close()
	}
	return errors.Join(s.store.Close(), s.lock.Close())
}
