PRAGMA application_id = 0x50545231;
PRAGMA user_version = 1;

-- used_to: the highest number that was ever dropped, so that none is given twice; boot: what the system calls
-- the start of the machine after which the journal was opened, NULL when it is closed.
CREATE TABLE journal (identity TEXT NOT NULL, used_to INTEGER NOT NULL, link_port INTEGER NOT NULL, boot TEXT);

-- position: how many bytes of messages were there before this one.
CREATE TABLE messages (
    sequence INTEGER PRIMARY KEY,
    time REAL NOT NULL,
    expires REAL,
    position INTEGER NOT NULL,
    topic TEXT NOT NULL,
    frame BLOB NOT NULL
);

CREATE TABLE consumers (
    name TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    topics TEXT NOT NULL,
    seen REAL NOT NULL,
    cursor INTEGER NOT NULL,
    handed_out INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE settled (
    consumer TEXT NOT NULL REFERENCES consumers ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (consumer, sequence)
) WITHOUT ROWID;

CREATE TABLE counts (
    consumer TEXT NOT NULL REFERENCES consumers ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (consumer, sequence)
) WITHOUT ROWID;

-- Has its own copy of the message, which may be dropped above; is_resent: its consumer has yet to settle it again.
CREATE TABLE set_aside (
    consumer TEXT NOT NULL REFERENCES consumers ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    count INTEGER NOT NULL,
    reason TEXT NOT NULL,
    is_resent INTEGER NOT NULL DEFAULT 0,
    time REAL NOT NULL,
    expires REAL,
    topic TEXT NOT NULL,
    frame BLOB NOT NULL,
    PRIMARY KEY (consumer, sequence)
);
