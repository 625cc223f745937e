//! What the calls of user administration are called in the audit log.

use agentforge_door::Calls;

pub(super) const CALLS: Calls = Calls {
    service: "console",
    operations: &[
        ("POST", "/api/users", "AddUser"),
        ("PATCH", "/api/users/{name}", "ChangeUser"),
        ("DELETE", "/api/users/{name}", "RemoveUser"),
        ("POST", "/api/users/{name}/link", "MakeLoginLink"),
        ("DELETE", "/api/users/{name}/sessions", "RevokeSessions"),
    ],
    reads: &[],
    kind: |_| "user",
};
