//! Sessions in the database: families of refresh tokens, of which only the newest generation is good.
//!
//! What a request needs of its session is remembered for a moment; a change in this process counts at once, one of another
//! replica after [`REMEMBERED_FOR`].

use super::clock::{micros, moment};
use crate::store::{Database, Error, on};
use agentforge_access::Role;
use serde::Serialize;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How long the state of a session is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(3);
/// Sessions that are remembered.
const REMEMBERED_MAX: usize = 10_000;
/// Sessions of one user; a further login ends the oldest.
pub const OF_USER_MAX: i64 = 32;
/// A tab that renewed with the token of the generation before, this soon after another, is not a thief.
pub const CONCURRENT_US: i64 = 10_000_000;
/// What is over is kept this long, for the list.
const KEPT_US: i64 = 24 * 3600 * 1_000_000;
/// Longest text of a browser's name that is kept, bytes.
const AGENT_BYTES_MAX: usize = 256;

/// A session that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// What that user may do now.
    pub role: Role,
    /// password, once or oidc.
    pub kind: String,
    /// The number of its newest refresh token.
    pub generation: i64,
    /// When that was made.
    pub renewed_at: i64,
    /// When it ends.
    pub expires_at: i64,
}

/// A session as a list shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// For `DELETE /auth/sessions/{id}`.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// How it began: password, once or oidc.
    pub kind: String,
    /// When it began.
    pub created_at: String,
    /// When it was last renewed.
    pub renewed_at: String,
    /// When it ends.
    pub expires_at: String,
    /// Where it began.
    pub address: String,
    /// The browser that began it.
    pub agent: String,
    /// Whether it is the caller's own.
    pub current: bool,
}

type Row = (String, String, String, String, i64, i64, i64, Option<i64>, Option<i64>);
const SELECT: &str = "SELECT s.id, s.user_name, u.role, s.kind, s.generation, s.renewed_at, s.expires_at, s.revoked_at, u.disabled_at \
    FROM sessions s JOIN users u ON u.name = s.user_name WHERE s.id = $1";

/// Sessions by their ids, as they were then; none where there was none.
type Remembered = HashMap<String, (Instant, Option<Session>)>;

/// The sessions of a database. Cheap to clone; all clones remember the same.
#[derive(Clone, Debug)]
pub struct Sessions {
    database: Database,
    remembered: Arc<Mutex<Remembered>>,
    /// Rises with each change: what was read before one is not remembered after it.
    changes: Arc<AtomicU64>,
}

impl Sessions {
    /// Of this database.
    pub fn new(database: Database) -> Self {
        Self { database, remembered: Arc::default(), changes: Arc::default() }
    }

    /// Begins a session; the oldest one ends where the user has too many.
    ///
    /// # Errors
    /// Of the database.
    pub async fn begin(
        &self,
        user: &str,
        kind: &str,
        ttl: Duration,
        address: &str,
        agent: &str,
    ) -> Result<String, Error> {
        const SQL: &str = "INSERT INTO sessions (id, user_name, kind, generation, created_at, renewed_at, expires_at, address, agent) \
            VALUES ($1, $2, $3, 1, $4, $4, $5, $6, $7)";
        const END_OLD: &str = "UPDATE sessions SET revoked_at = $2, revoked_for = 'too_many' WHERE user_name = $1 AND revoked_at IS NULL AND id NOT IN \
            (SELECT id FROM sessions WHERE user_name = $1 AND revoked_at IS NULL ORDER BY created_at DESC, id DESC LIMIT $3)";
        let (id, now) = (uuid::Uuid::now_v7().to_string(), micros());
        let expires = now + i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX / 2);
        let shown: String = agent.chars().filter(|c| !c.is_control()).collect();
        let agent = &shown[..shown.floor_char_boundary(AGENT_BYTES_MAX)];
        on!(&self.database, write, pool => sqlx::query(SQL).bind(&id).bind(user).bind(kind).bind(now).bind(expires).bind(address).bind(agent)
            .execute(pool).await.map(drop))
        .map_err(Error::to("begin a session"))?;
        on!(&self.database, write, pool => sqlx::query(END_OLD).bind(user).bind(now).bind(OF_USER_MAX).execute(pool).await.map(drop))
            .map_err(Error::to("end old sessions"))?;
        Ok(id)
    }

    /// A session that is neither over nor revoked, of a user who may log in; as remembered.
    ///
    /// # Errors
    /// Of the database.
    pub async fn get(&self, id: &str) -> Result<Option<Session>, Error> {
        let known = {
            let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.get(id).filter(|(at, _)| at.elapsed() < REMEMBERED_FOR).map(|(_, session)| session.clone())
        };
        let session = match known {
            Some(session) => session,
            None => self.read(id).await?,
        };
        Ok(session.filter(|session| session.expires_at > micros()))
    }

    /// The same, as the database has it now.
    ///
    /// # Errors
    /// Of the database.
    pub async fn read(&self, id: &str) -> Result<Option<Session>, Error> {
        let before = self.changes.load(Ordering::SeqCst);
        let row: Option<Row> =
            on!(&self.database, read, pool => sqlx::query_as(SELECT).bind(id).fetch_optional(pool).await)
                .map_err(Error::to("read a session"))?;
        let session = row.and_then(|(id, user, role, kind, generation, renewed_at, expires_at, revoked, disabled)| {
            let is_good = revoked.is_none() && disabled.is_none() && expires_at > micros();
            let role = Role::from_word(&role)?;
            is_good.then_some(Session { id, user, role, kind, generation, renewed_at, expires_at })
        });
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, (at, _)| at.elapsed() < REMEMBERED_FOR);
        }
        if remembered.len() < REMEMBERED_MAX && self.changes.load(Ordering::SeqCst) == before {
            remembered.insert(id.to_owned(), (Instant::now(), session.clone()));
        }
        drop(remembered);
        Ok(session)
    }

    /// Makes the next generation, if `generation` is the newest: of two that ask at once, one gets it.
    ///
    /// # Errors
    /// Of the database.
    pub async fn renew(&self, id: &str, generation: i64) -> Result<bool, Error> {
        const SQL: &str = "UPDATE sessions SET generation = generation + 1, renewed_at = $3 WHERE id = $1 AND generation = $2 AND revoked_at IS NULL";
        let renewed = on!(&self.database, write, pool => sqlx::query(SQL).bind(id).bind(generation).bind(micros()).execute(pool).await.map(|done| done.rows_affected() > 0))
            .map_err(Error::to("renew a session"))?;
        self.forget(id);
        Ok(renewed)
    }

    /// Ends a session of `user`, or of anyone; whether there was one.
    ///
    /// # Errors
    /// Of the database.
    pub async fn revoke(&self, id: &str, user: Option<&str>, why: &str) -> Result<bool, Error> {
        const SQL: &str = "UPDATE sessions SET revoked_at = $2, revoked_for = $3 WHERE id = $1 AND revoked_at IS NULL AND ($4 IS NULL OR user_name = $4)";
        let revoked = on!(&self.database, write, pool => sqlx::query(SQL).bind(id).bind(micros()).bind(why).bind(user).execute(pool).await.map(|done| done.rows_affected() > 0))
            .map_err(Error::to("revoke a session"))?;
        self.forget(id);
        Ok(revoked)
    }

    /// Ends all sessions of a user but `except`.
    ///
    /// # Errors
    /// Of the database.
    pub async fn revoke_all(&self, user: &str, except: &str, why: &str) -> Result<u64, Error> {
        const SQL: &str = "UPDATE sessions SET revoked_at = $2, revoked_for = $3 WHERE user_name = $1 AND revoked_at IS NULL AND id <> $4";
        let revoked = on!(&self.database, write, pool => sqlx::query(SQL).bind(user).bind(micros()).bind(why).bind(except).execute(pool).await.map(|done| done.rows_affected()))
            .map_err(Error::to("revoke sessions"))?;
        self.forget_all();
        Ok(revoked)
    }

    /// The sessions of a user that can be used, newest first.
    ///
    /// # Errors
    /// Of the database.
    pub async fn list(&self, user: &str, current: &str) -> Result<Vec<Shown>, Error> {
        const SQL: &str = "SELECT id, kind, created_at, renewed_at, expires_at, address, agent FROM sessions \
            WHERE user_name = $1 AND revoked_at IS NULL AND expires_at > $2 ORDER BY created_at DESC LIMIT $3";
        type Listed = (String, String, i64, i64, i64, String, String);
        let rows: Vec<Listed> =
            on!(&self.database, read, pool => sqlx::query_as(SQL).bind(user).bind(micros()).bind(OF_USER_MAX).fetch_all(pool).await)
                .map_err(Error::to("list sessions"))?;
        let shown = |(id, kind, created, renewed, expires, address, agent): Listed| Shown {
            current: id == current,
            id,
            user: user.to_owned(),
            kind,
            created_at: moment(created),
            renewed_at: moment(renewed),
            expires_at: moment(expires),
            address,
            agent,
        };
        Ok(rows.into_iter().map(shown).collect())
    }

    /// How many can be used; takes those out that have been over for long.
    ///
    /// # Errors
    /// Of the database.
    pub async fn upkeep(&self) -> Result<i64, Error> {
        let now = micros();
        on!(&self.database, write, pool => sqlx::query("DELETE FROM sessions WHERE expires_at < $1").bind(now - KEPT_US).execute(pool).await.map(drop))
            .map_err(Error::to("forget old sessions"))?;
        let (count,): (i64,) =
            on!(&self.database, read, pool => sqlx::query_as("SELECT count(*) FROM sessions WHERE revoked_at IS NULL AND expires_at > $1").bind(now).fetch_one(pool).await)
                .map_err(Error::to("count sessions"))?;
        Ok(count)
    }

    fn forget(&self, id: &str) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// After a change of a user.
    pub fn forget_all(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
