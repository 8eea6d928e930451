package store

import (
	"context"
	"fmt"

	"lodge/gateway"
)

// migrations bring the schema from version i to i+1. They are only ever added to.
func migrations() []string {
	return []string{schemaFirst, schemaShared, schemaKV, schemaLogins, schemaClaims, schemaPeople, schemaLayers, schemaCheckpoints, schemaMemory, schemaBucketShares}
}

// refuseNewer fails if the file's schema is newer than this program.
func (s *Store) refuseNewer(ctx context.Context) error {
	have, err := s.version(ctx)
	if supported := len(migrations()); err == nil && have > supported {
		return gateway.Invalid("the state file was written by a newer Lodge (schema %d, this one supports %d)", have, supported).
			WithHint("Start the newer lodged again; this one left the file as it is.")
	}
	return err
}

func (s *Store) migrate(ctx context.Context) error {
	have, err := s.version(ctx)
	if err != nil {
		return err
	}
	for v, script := range migrations() {
		if v < have {
			continue
		}
		if err := s.step(ctx, v+1, script); err != nil {
			return fmt.Errorf("migrate to schema %d: %w", v+1, refine(err))
		}
	}
	return nil
}

func (s *Store) version(ctx context.Context) (have int, err error) {
	err = s.db.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&have)
	return have, err
}

func (s *Store) step(ctx context.Context, version int, script string) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // no effect after Commit
	if _, err := tx.ExecContext(ctx, script); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(`PRAGMA user_version = %d`, version)); err != nil {
		return err
	}
	return tx.Commit()
}

const schemaFirst = `
CREATE TABLE machines (
	number     INTEGER PRIMARY KEY AUTOINCREMENT, -- AUTOINCREMENT: never given twice, also after a delete
	id         BLOB NOT NULL UNIQUE,
	name       TEXT NOT NULL,
	addr       TEXT NOT NULL UNIQUE,
	removed    INTEGER NOT NULL DEFAULT 0,
	definition TEXT NOT NULL                      -- the gateway.VM as JSON
);
CREATE UNIQUE INDEX machine_names ON machines (name) WHERE NOT removed;
CREATE TABLE resting (addr TEXT PRIMARY KEY, until INTEGER NOT NULL); -- Unix seconds
CREATE TABLE kv (key TEXT PRIMARY KEY, value BLOB NOT NULL, modified INTEGER NOT NULL) WITHOUT ROWID; -- Unix nanoseconds
CREATE TABLE tokens (
	kind    TEXT NOT NULL,
	hash    BLOB NOT NULL,
	vm      BLOB NOT NULL,
	data    TEXT NOT NULL,
	expires INTEGER NOT NULL,                     -- Unix seconds
	PRIMARY KEY (kind, hash)
) WITHOUT ROWID;
CREATE INDEX token_expiry ON tokens (expires);
CREATE INDEX token_vm ON tokens (vm);
`

// The tables of Shared.
const schemaShared = `
CREATE TABLE shared (
	key      BLOB PRIMARY KEY,                    -- BLOB: sorted by bytes
	value    BLOB NOT NULL,
	revision INTEGER NOT NULL,                    -- of the last change
	lease    INTEGER                              -- of shared_leases, or NULL
) WITHOUT ROWID;
CREATE INDEX shared_by_lease ON shared (lease) WHERE lease IS NOT NULL;
CREATE TABLE shared_changes (
	revision INTEGER NOT NULL,
	n        INTEGER NOT NULL,                    -- from 1 in each revision
	key      BLOB NOT NULL,
	value    BLOB,                                -- NULL: deleted
	PRIMARY KEY (revision, n)
) WITHOUT ROWID;
CREATE TABLE shared_leases (
	id   INTEGER PRIMARY KEY AUTOINCREMENT,       -- AUTOINCREMENT: never given twice
	life INTEGER NOT NULL                         -- nanoseconds
);
CREATE TABLE shared_head (                        -- one row
	revision  INTEGER NOT NULL,
	compacted INTEGER NOT NULL                    -- changes up to this revision are dropped
);
INSERT INTO shared_head (revision, compacted) VALUES (1, 1);
`

// Certificates and secrets move into Shared.
const schemaKV = `
UPDATE shared_head SET revision = revision + 1, compacted = revision + 1;
INSERT INTO shared (key, value, revision)         -- 8 bytes of time in front of the value, see KV
	SELECT CAST('kv/' || key AS BLOB), unhex(printf('%016X', modified) || hex(value)), shared_head.revision FROM kv, shared_head;
DROP TABLE kv;
`

// Logins move into Shared; see token.
const schemaLogins = `
UPDATE shared_head SET revision = revision + 1, compacted = revision + 1;
INSERT INTO shared (key, value, revision)         -- see Logins
	SELECT CAST('token/' || kind || '/' || lower(hex(hash)) AS BLOB), CAST(json_object(
		'vm', lower(substr(hex(vm), 1, 8) || '-' || substr(hex(vm), 9, 4) || '-' || substr(hex(vm), 13, 4) || '-' ||
			substr(hex(vm), 17, 4) || '-' || substr(hex(vm), 21)),
		'data', data, 'expires', expires) AS BLOB), shared_head.revision FROM tokens, shared_head;
DROP TABLE tokens;
`

// Claims of the VMs move into Shared; see claims.go.
const schemaClaims = `
UPDATE shared_head SET revision = revision + 1, compacted = revision + 1;
CREATE TEMP TABLE vms AS SELECT name, addr, removed,
	lower(substr(hex(id), 1, 8) || '-' || substr(hex(id), 9, 4) || '-' || substr(hex(id), 13, 4) || '-' ||
		substr(hex(id), 17, 4) || '-' || substr(hex(id), 21)) AS uuid FROM machines;
INSERT INTO shared (key, value, revision)         -- see claims.go
	SELECT CAST(claim AS BLOB), CAST(uuid AS BLOB), shared_head.revision FROM shared_head,
		(SELECT 'name/' || name AS claim, uuid FROM vms WHERE NOT removed UNION ALL SELECT 'addr/' || addr, uuid FROM vms);
INSERT INTO shared (key, value, revision)
	SELECT CAST('number' AS BLOB), CAST(CAST(seq AS TEXT) AS BLOB), shared_head.revision FROM sqlite_sequence, shared_head
		WHERE name = 'machines';
INSERT INTO shared_leases (life) SELECT 900000000000 WHERE EXISTS (SELECT * FROM resting);
INSERT OR IGNORE INTO shared (key, value, revision, lease)
	SELECT CAST('addr/' || addr AS BLOB), x'', shared_head.revision, (SELECT max(id) FROM shared_leases) FROM resting, shared_head;
DROP TABLE temp.vms;
DROP TABLE resting;
`

// Logins are of people, who have numbers; those of before name an address. They end: log in again.
const schemaPeople = `
UPDATE shared_head SET revision = revision + 1, compacted = revision + 1;
DELETE FROM shared WHERE key >= CAST('token/' AS BLOB) AND key < CAST('token0' AS BLOB);
`

// Disks become layers: that of a resumed VM is over the disk of its template, every other one is
// complete. The first layer of a VM has the VM's UUID as its own.
const schemaLayers = `
CREATE TABLE layers (
	number  INTEGER PRIMARY KEY,                  -- a parent has a lower one
	id      TEXT NOT NULL UNIQUE,
	parent  TEXT REFERENCES layers (id),          -- NULL: complete by itself
	vm      BLOB,                                 -- NULL: of an image or a template
	file    TEXT NOT NULL UNIQUE,
	format  TEXT NOT NULL,
	bytes   INTEGER NOT NULL,
	state   TEXT NOT NULL,
	created INTEGER NOT NULL                      -- Unix seconds
);
CREATE INDEX layer_children ON layers (parent);
CREATE TEMP TABLE vms AS SELECT number, id, json_extract(definition, '$.id') AS uuid,
	coalesce(json_extract(definition, '$.base'), '') AS base, coalesce(json_extract(definition, '$.disk_gib'), 0) << 30 AS bytes,
	coalesce(unixepoch(json_extract(definition, '$.created')), 0) AS created FROM machines WHERE json_extract(definition, '$.ready');
INSERT INTO layers (id, file, format, bytes, state, created)
	SELECT DISTINCT 'template/' || base, 'templates/' || base || '/disk', 'raw', 0, 'ready', 0 FROM vms WHERE base <> '';
INSERT INTO layers (id, parent, vm, file, format, bytes, state, created)
	SELECT uuid, 'template/' || base, id, 'disks/' || uuid || '.qcow2', 'qcow2', bytes, 'ready', created FROM vms WHERE base <> '' ORDER BY number;
INSERT INTO layers (id, vm, file, format, bytes, state, created)
	SELECT uuid, id, 'disks/' || uuid || '.img', 'raw', bytes, 'ready', created FROM vms WHERE base = '' ORDER BY number;
UPDATE machines SET definition = json_remove(json_set(definition, '$.disk', json_extract(definition, '$.id')), '$.base')
	WHERE id IN (SELECT id FROM vms);
DROP TABLE temp.vms;
`

// The checkpoints of VMs. A layer with a checkpoint cannot be deleted.
const schemaCheckpoints = `
CREATE TABLE checkpoints (
	number   INTEGER PRIMARY KEY,                 -- in the order of their making
	id       TEXT NOT NULL UNIQUE,
	vm       BLOB NOT NULL,
	name     TEXT NOT NULL,
	kind     TEXT NOT NULL,
	layer    TEXT NOT NULL REFERENCES layers (id),
	quiesced INTEGER NOT NULL,
	shares   TEXT NOT NULL,                       -- a list of gateway.Share as JSON
	created  INTEGER NOT NULL,                    -- Unix seconds
	UNIQUE (vm, name)
);
CREATE INDEX checkpoint_layers ON checkpoints (layer);
`

// A checkpoint may have the memory of its guest, in a file of its own: see gateway.Checkpoint.
const schemaMemory = `
ALTER TABLE checkpoints ADD COLUMN memory TEXT NOT NULL DEFAULT '';
`

// The shares of a VM's buckets at a checkpoint, a list of gateway.BucketShare as JSON. Without them
// a rollback shares none.
const schemaBucketShares = `
ALTER TABLE checkpoints ADD COLUMN bucket_shares TEXT NOT NULL DEFAULT 'null';
`
