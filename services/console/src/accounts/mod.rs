//! Who people are: users, their passwords and sessions, and what protects both.
//!
//! A session begins with a login, lasts for CONSOLE_SESSION_TTL, and is renewed every few minutes with a refresh token
//! that is good once: an older one ends the session, since either of two holders may be a thief. What changes something
//! needs the session's CSRF value.

mod admin;
mod audit;
mod body;
mod caller;
mod clock;
mod cookies;
mod guard;
mod identity;
mod keys;
mod limits;
mod oidc;
mod opening;
mod password;
mod provider;
mod routes;
mod sessions;
mod state;
mod users;

pub use identity::Identity;
pub use keys::{AUDIENCE, DEV_PRIVATE, DEV_PUBLIC, ISSUER, Keys, check_key, random};
pub use password::{check_new, hash_now};
pub use provider::OidcConfig;
pub use sessions::Sessions;
pub use state::Accounts;
pub use users::{Change, LINK_US, PAGE_MAX, User, Users, check, role};

pub(crate) use guard::{guarded, recognised};
pub(crate) use routes::{protected, public};
