//! Users and one-time links in the database.

use super::{
    clock::{micros, moment},
    password::check_new,
};
use crate::store::{Database, Error, on};
use agentforge_access::Role;
use ring::digest;
use serde::Serialize;

/// Users of one page.
pub const PAGE_MAX: i64 = 200;
/// How long a one-time link is good, microseconds.
pub const LINK_US: i64 = 15 * 60 * 1_000_000;
/// Links that are over are kept this long, so that none is made again.
const KEPT_US: i64 = 24 * 3600 * 1_000_000;
/// The roles that people have.
pub const ROLES: [Role; 4] = [Role::Read, Role::Submit, Role::Operator, Role::Admin];

/// A user, without the password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// The name to log in with.
    pub name: String,
    /// viewer, submitter, operator or admin.
    pub role: String,
    /// Whether there is a password; without one only a link or an OpenID provider lets in.
    pub has_password: bool,
    /// Whether the user may not log in.
    pub disabled: bool,
    /// When it was added.
    pub created_at: String,
    /// When it last logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_login_at: Option<String>,
}

type Row = (String, String, Option<String>, Option<i64>, i64, Option<i64>);

fn user((name, role, password, disabled, created, login): Row) -> User {
    User {
        name,
        role,
        has_password: password.is_some(),
        disabled: disabled.is_some(),
        created_at: moment(created),
        last_login_at: login.map(moment),
    }
}

/// What changes of a user. `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The new role.
    pub role: Option<Role>,
    /// Whether it may not log in.
    pub disabled: Option<bool>,
    /// The hash of a new password.
    pub password: Option<String>,
}

/// The users of a database.
#[derive(Clone, Debug)]
pub struct Users(pub Database);

impl Users {
    /// A page of users by name, after `after`.
    ///
    /// # Errors
    /// Of the database.
    pub async fn list(&self, after: &str, limit: i64) -> Result<Vec<User>, Error> {
        const SQL: &str = "SELECT name, role, password, disabled_at, created_at, last_login_at FROM users WHERE name > $1 ORDER BY name LIMIT $2";
        let rows: Vec<Row> =
            on!(&self.0, read, pool => sqlx::query_as(SQL).bind(after).bind(limit).fetch_all(pool).await)
                .map_err(Error::to("list users"))?;
        Ok(rows.into_iter().map(user).collect())
    }

    /// One user.
    ///
    /// # Errors
    /// Of the database.
    pub async fn get(&self, name: &str) -> Result<Option<User>, Error> {
        const SQL: &str =
            "SELECT name, role, password, disabled_at, created_at, last_login_at FROM users WHERE name = $1";
        let row: Option<Row> = on!(&self.0, read, pool => sqlx::query_as(SQL).bind(name).fetch_optional(pool).await)
            .map_err(Error::to("read a user"))?;
        Ok(row.map(user))
    }

    /// The hash of a user who may log in, and whether the name is known at all.
    ///
    /// # Errors
    /// Of the database.
    pub async fn hash(&self, name: &str) -> Result<Option<String>, Error> {
        const SQL: &str = "SELECT password FROM users WHERE name = $1 AND disabled_at IS NULL";
        let row: Option<(Option<String>,)> =
            on!(&self.0, read, pool => sqlx::query_as(SQL).bind(name).fetch_optional(pool).await)
                .map_err(Error::to("read a user"))?;
        Ok(row.and_then(|(hash,)| hash))
    }

    /// Whether there is none yet.
    ///
    /// # Errors
    /// Of the database.
    pub async fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.list("", 1).await?.is_empty())
    }

    /// Adds a user.
    ///
    /// # Errors
    /// Of the database; [`Error::is_duplicate`] where the name is taken.
    pub async fn add(&self, name: &str, role: Role, hash: Option<&str>) -> Result<(), Error> {
        const SQL: &str =
            "INSERT INTO users (name, role, password, created_at, changed_at) VALUES ($1, $2, $3, $4, $5)";
        let now = micros();
        on!(&self.0, write, pool => sqlx::query(SQL).bind(name).bind(role.as_str()).bind(hash).bind(now).bind(now).execute(pool).await.map(drop))
            .map_err(Error::to("add a user"))
    }

    /// Changes a user; whether there is one.
    ///
    /// # Errors
    /// Of the database.
    pub async fn change(&self, name: &str, change: &Change) -> Result<bool, Error> {
        const SQL: &str = "UPDATE users SET role = COALESCE($2, role), password = COALESCE($3, password), \
            disabled_at = CASE WHEN $4 < 0 THEN disabled_at WHEN $4 = 0 THEN NULL ELSE COALESCE(disabled_at, $4) END, changed_at = $5 WHERE name = $1";
        let now = micros();
        let disabled: i64 = match change.disabled {
            None => -1,
            Some(is_disabled) => i64::from(is_disabled) * now,
        };
        let role = change.role.map(Role::as_str);
        on!(&self.0, write, pool => sqlx::query(SQL).bind(name).bind(role).bind(change.password.as_deref()).bind(disabled).bind(now)
            .execute(pool).await.map(|done| done.rows_affected() > 0))
        .map_err(Error::to("change a user"))
    }

    /// Removes a user with all sessions; whether there was one.
    ///
    /// # Errors
    /// Of the database.
    pub async fn remove(&self, name: &str) -> Result<bool, Error> {
        on!(&self.0, write, pool => sqlx::query("DELETE FROM users WHERE name = $1").bind(name).execute(pool).await.map(|done| done.rows_affected() > 0))
            .map_err(Error::to("remove a user"))
    }

    /// Notes that the user logged in.
    ///
    /// # Errors
    /// Of the database.
    pub async fn logged_in(&self, name: &str) -> Result<(), Error> {
        on!(&self.0, write, pool => sqlx::query("UPDATE users SET last_login_at = $2 WHERE name = $1").bind(name).bind(micros()).execute(pool).await.map(drop))
            .map_err(Error::to("note a login"))
    }

    /// Makes a one-time link for a user: its token, which is stored nowhere.
    ///
    /// # Errors
    /// Of the database.
    pub async fn link(&self, name: &str, token: &str) -> Result<(), Error> {
        const SQL: &str = "INSERT INTO once_links (digest, user_name, expires_at) VALUES ($1, $2, $3) ON CONFLICT (digest) DO NOTHING";
        let (digest, now) = (digest_of(token), micros());
        on!(&self.0, write, pool => sqlx::query("DELETE FROM once_links WHERE expires_at < $1").bind(now - KEPT_US).execute(pool).await.map(drop))
            .map_err(Error::to("forget old links"))?;
        on!(&self.0, write, pool => sqlx::query(SQL).bind(digest).bind(name).bind(now + LINK_US).execute(pool).await.map(drop))
            .map_err(Error::to("store a link"))
    }

    /// Uses a link up: whose it is, if it is good and the user may log in.
    ///
    /// # Errors
    /// Of the database.
    pub async fn use_link(&self, token: &str) -> Result<Option<String>, Error> {
        const SQL: &str = "UPDATE once_links SET used_at = $2 WHERE digest = $1 AND used_at IS NULL AND expires_at > $2 RETURNING user_name";
        let row: Option<(String,)> =
            on!(&self.0, write, pool => sqlx::query_as(SQL).bind(digest_of(token)).bind(micros()).fetch_optional(pool).await)
                .map_err(Error::to("use a link"))?;
        let Some((name,)) = row else { return Ok(None) };
        Ok(self.get(&name).await?.filter(|user| !user.disabled).map(|user| user.name))
    }
}

/// A role that people have, by its word.
///
/// # Errors
/// Which words there are.
pub fn role(word: &str) -> Result<Role, String> {
    let known = ROLES.into_iter().find(|role| role.as_str() == word);
    known.ok_or_else(|| format!("a role is one of {}", ROLES.map(Role::as_str).join(", ")))
}

/// Whether a new user may have this name and password.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn check(name: &str, password: Option<&str>) -> Result<(), String> {
    if !agentforge_access::is_name(name) {
        return Err("a user's name has 1 to 64 letters, digits, dots, hyphens or underscores".to_owned());
    }
    password.map_or(Ok(()), |password| check_new(name, password))
}

fn digest_of(token: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, token.as_bytes()).as_ref())
}
