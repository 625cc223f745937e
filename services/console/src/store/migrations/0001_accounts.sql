-- Both databases take it. Times are microseconds since 1970.
CREATE TABLE users (
    name TEXT NOT NULL PRIMARY KEY,
    role TEXT NOT NULL,
    -- In PHC form; absent for a user who only has a one-time link or an OpenID provider.
    password TEXT,
    disabled_at BIGINT,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    last_login_at BIGINT
);

-- A family of refresh tokens. Only the newest generation is good; an older one revokes the family.
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    user_name TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    renewed_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    address TEXT NOT NULL,
    agent TEXT NOT NULL,
    revoked_at BIGINT,
    revoked_for TEXT
);
CREATE INDEX sessions_of_user ON sessions (user_name, created_at);
CREATE INDEX sessions_end ON sessions (expires_at);

-- Links that log in once. The token itself is stored nowhere.
CREATE TABLE once_links (
    digest TEXT NOT NULL PRIMARY KEY,
    user_name TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);
