//! Whether a caller may do something here.

use crate::problem::{Problem, forbidden};
use agentforge_access::{Principal, Role};

/// The caller may do what needs this role, and not only in a part of the installation.
///
/// # Errors
/// That it may not.
pub(crate) fn needs(caller: &Principal, role: Role) -> Result<(), Problem> {
    let name = &caller.name;
    if !caller.scopes.is_all() {
        let scopes = &caller.scopes;
        return Err(forbidden(format!("{name} is limited to {scopes}, and this is about the whole installation")));
    }
    if caller.role.includes(role) {
        return Ok(());
    }
    let (has, needed) = (caller.role.as_str(), role.as_str());
    Err(forbidden(format!("{name} has the role {has}; this needs {needed}")))
}
