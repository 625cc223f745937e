//! DATABASE_URL in a file that is read again: the user and its password are changed without a restart.
//!
//! Sessions that are open stay until they are old; new ones log in as the file says then. Which database it is cannot
//! change: a file that names another one is reported and not used.

use super::connection;
use agentforge_config::read_secret_file;
use sqlx::postgres::{PgConnectOptions, PgPool};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::AbortHandle;
use tracing::{info, warn};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Follows the file for as long as it lives.
pub(super) struct Following(AbortHandle);

impl Following {
    /// New sessions of `pool`, which was opened with the text `url`, log in as the file says. Needs a tokio runtime.
    pub(super) fn start(pool: PgPool, url: String, file: PathBuf) -> Self {
        let follow = async move {
            let (mut known, mut told) = (url, None);
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let problem = match read(&file) {
                    Ok(url) if url == known => None,
                    Ok(url) => match login(&pool.connect_options(), &url) {
                        Ok(options) => {
                            let user = options.get_username().to_owned();
                            pool.set_connect_options(options);
                            info!(user, "new sessions of the database log in as DATABASE_URL_FILE says now");
                            known = url;
                            None
                        }
                        Err(problem) => Some(problem),
                    },
                    Err(problem) => Some(problem),
                };
                if let Some(problem) = problem.as_ref().filter(|problem| told.as_ref() != Some(*problem)) {
                    warn!(problem, "DATABASE_URL_FILE cannot be used; the login that was read before stays");
                }
                told = problem;
            }
        };
        Self(tokio::spawn(follow).abort_handle())
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn read(file: &Path) -> Result<String, String> {
    let found = read_secret_file(file).map_err(|problem| format!("{} {problem}", file.display()))?;
    Ok(found.text.trim().to_owned())
}

/// How to log in to the same database. The error does not repeat the URL.
fn login(now: &PgConnectOptions, url: &str) -> Result<PgConnectOptions, String> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err("it does not begin with postgres://".to_owned());
    }
    let options = connection::options(url).map_err(|e| e.to_string())?;
    let place = |o: &PgConnectOptions| (o.get_host().to_owned(), o.get_port(), o.get_database().map(str::to_owned));
    if place(now) == place(&options) {
        Ok(options)
    } else {
        Err("it names another database, which needs a restart".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_changes_and_the_database_does_not() {
        let now = connection::options("postgres://a:one@db.example:5432/forge").unwrap();
        assert_eq!(login(&now, "postgres://b:two@db.example/forge").unwrap().get_username(), "b");
        for other in
            ["postgres://a:two@other/forge", "postgres://a:two@db.example:1/forge", "postgres://a:two@db.example/x"]
        {
            let problem = login(&now, other).unwrap_err();
            assert!(problem.contains("another database") && !problem.contains("two"), "{problem}");
        }
        assert!(!login(&now, "mysql://a:two@db.example/forge").unwrap_err().contains("two"));
    }
}
