package store

import (
	"context"
	"database/sql"

	"lodge/gateway"
)

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// query reads all rows of a query; into returns where the columns of a row go.
func query[T any](ctx context.Context, db querier, into func(*T) []any, text string, args ...any) (all []T, err error) {
	rows, err := db.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err has what there is
	for rows.Next() {
		var row T
		if err := rows.Scan(into(&row)...); err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

// intoEntry is for rows of key, value and revision.
func intoEntry(e *gateway.Entry) []any { return []any{&e.Key, &e.Value, &e.Rev} }

// intoEvent is for rows of key, value, revision and whether that is a deletion.
func intoEvent(e *gateway.Event) []any { return append(intoEntry(&e.Entry), &e.Deleted) }
