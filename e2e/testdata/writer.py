"""Writes rows into a SQLite database for ever, each in its own transaction, and logs the committed ones."""
import itertools
import os
import sqlite3
import time

db = sqlite3.connect(os.path.expanduser("~/data.db"))
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=FULL")
db.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, boot TEXT)")
boot = open("/proc/sys/kernel/random/boot_id").read().strip()
for _ in itertools.count():
    with db:
        row = db.execute("INSERT INTO rows (boot) VALUES (?)", (boot,)).lastrowid
    with open(os.path.expanduser("~/committed"), "a") as log:
        log.write("%d\n" % row)
        log.flush()
        os.fsync(log.fileno())
    time.sleep(0.05)
