//! What may be asked of which service, and by whom: everything else is not there.
//!
//! The roles are those of the services, which check them again: a wrong row here opens nothing.

use agentforge_access::Role::{self, Admin, Operator, Read, Submit};

/// A service behind the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// Behind /api/.
    pub(super) name: &'static str,
    /// The setting that says where it is.
    pub(super) setting: &'static str,
    /// Whether it is one of ours, which learns who asks.
    pub(super) is_ours: bool,
    /// Whether it packs its answers for the browser: they are large, and no document of JSON.
    pub(super) is_packed: bool,
    /// Method, path, and the role that it needs; `*` stands for one part.
    rules: &'static [(&'static str, &'static str, Role)],
}

/// All of them.
pub(super) static SERVICES: [Service; 7] = [
    Service {
        name: "orchestrator",
        setting: "ORCHESTRATOR_URL",
        is_ours: true,
        is_packed: false,
        rules: &[
            ("GET", "/v1/jobs", Read),
            ("GET", "/v1/jobs:find", Read),
            ("GET", "/v1/jobs:counts", Read),
            ("GET", "/v1/jobs/*", Read),
            ("GET", "/v1/jobs/*/attempts", Read),
            ("GET", "/v1/jobs/*/output", Read),
            ("GET", "/v1/jobs/*/watch", Read),
            ("GET", "/v1/queues", Read),
            ("GET", "/v1/dead-letters", Read),
            ("GET", "/v1/dead-letters/*", Read),
            ("GET", "/v1/operations", Read),
            ("GET", "/v1/operations/*", Read),
            ("GET", "/v1/outbox/parked", Read),
            ("GET", "/v1/schedules", Read),
            ("GET", "/v1/schedules/*", Read),
            ("GET", "/v1/schedules/*/next-runs", Read),
            ("GET", "/v1/agents", Read),
            ("GET", "/v1/agents/*", Read),
            ("GET", "/v1/sites", Read),
            ("GET", "/v1/slo", Read),
            ("GET", "/v1/openapi.json", Read),
            ("GET", "/v1/audit", Admin),
            ("GET", "/v1/audit/chains", Admin),
            ("GET", "/v1/audit/chains/*", Admin),
            ("POST", "/v1/jobs", Submit),
            ("POST", "/v1/jobs:batch", Submit),
            ("POST", "/v1/jobs/*/cancel", Submit),
            ("POST", "/v1/jobs/*/retry", Submit),
            ("POST", "/v1/jobs:retry", Operator),
            ("POST", "/v1/jobs:cancel", Operator),
            ("POST", "/v1/queues/*/pause", Operator),
            ("POST", "/v1/queues/*/resume", Operator),
            ("POST", "/v1/dead-letters/redrive", Operator),
            ("POST", "/v1/dead-letters/discard", Operator),
            ("POST", "/v1/operations/*/cancel", Operator),
            ("POST", "/v1/outbox/parked/retry", Operator),
            ("POST", "/v1/outbox/parked/discard", Operator),
            ("POST", "/v1/schedules", Admin),
            ("PATCH", "/v1/schedules/*", Admin),
            ("DELETE", "/v1/schedules/*", Admin),
            ("POST", "/v1/schedules/*/run", Operator),
            ("POST", "/v1/schedules/*/pause", Operator),
            ("POST", "/v1/schedules/*/resume", Operator),
        ],
    },
    Service {
        name: "broadcaster",
        setting: "BROADCASTER_URL",
        is_ours: true,
        is_packed: false,
        rules: &[
            ("GET", "/v1/endpoints", Read),
            ("GET", "/v1/endpoints/*", Read),
            ("GET", "/v1/deliveries", Read),
            ("GET", "/v1/dead-letters", Read),
            ("GET", "/v1/dead-letters/*", Read),
            ("POST", "/v1/endpoints", Admin),
            ("PATCH", "/v1/endpoints/*", Admin),
            ("DELETE", "/v1/endpoints/*", Admin),
            ("POST", "/v1/endpoints/*/rotate", Admin),
            ("POST", "/v1/endpoints/*/enable", Operator),
            ("POST", "/v1/endpoints/*/pause", Operator),
            ("POST", "/v1/endpoints/*/resume", Operator),
            ("POST", "/v1/endpoints/*/test", Operator),
            ("POST", "/v1/replay", Operator),
            ("POST", "/v1/dead-letters/redeliver", Operator),
        ],
    },
    Service {
        name: "tactical",
        setting: "TACTICAL_URL",
        is_ours: true,
        is_packed: false,
        rules: &[
            ("GET", "/events/stream", Read),
            ("GET", "/v1/rejected", Read),
            ("GET", "/v1/evidence/*", Read),
            ("POST", "/v1/markers", Submit),
            ("DELETE", "/v1/markers/*", Submit),
            ("POST", "/v1/zones", Submit),
            ("DELETE", "/v1/zones/*", Submit),
        ],
    },
    Service {
        name: "prometheus",
        setting: "PROMETHEUS_URL",
        is_ours: false,
        is_packed: false,
        rules: &[
            ("GET", "/api/v1/query", Read),
            ("GET", "/api/v1/query_range", Read),
            ("GET", "/api/v1/rules", Read),
            ("GET", "/api/v1/alerts", Read),
        ],
    },
    Service {
        name: "alertmanager",
        setting: "ALERTMANAGER_URL",
        is_ours: false,
        is_packed: false,
        rules: &[("GET", "/api/v2/alerts", Read), ("GET", "/api/v2/silences", Read)],
    },
    Service {
        name: "exporter",
        setting: "NATS_EXPORTER_URL",
        is_ours: false,
        is_packed: true,
        rules: &[("GET", "/metrics", Read)],
    },
    Service {
        name: "syncdaemon",
        setting: "SYNCDAEMON_URL",
        is_ours: false,
        is_packed: false,
        rules: &[("GET", "/status", Read), ("GET", "/readyz", Read)],
    },
];

/// What callers of one role are all answered alike, and no audit log has: see [`super::shared`].
const SHARED: &[(&str, &[&str])] = &[
    ("orchestrator", &["/v1/jobs:counts", "/v1/queues", "/v1/agents", "/v1/slo", "/v1/sites", "/v1/operations"]),
    ("broadcaster", &["/v1/endpoints"]),
    ("prometheus", &["/api/v1/query", "/api/v1/query_range", "/api/v1/rules", "/api/v1/alerts"]),
    ("alertmanager", &["/api/v2/alerts", "/api/v2/silences"]),
    ("syncdaemon", &["/status"]),
];

/// What callers of one role are answered alike where the answer says so (`x-agentforge-alike`): elsewhere it may hold what is
/// sensitive.
const SHARED_WHERE_ALIKE: &[(&str, &[&str])] = &[("orchestrator", &["/v1/jobs", "/v1/dead-letters"])];

/// Whether one question is enough for all who ask it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sharing {
    Never,
    Always,
    WhereAlike,
}

/// What an answer of the list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// With at least this role.
    For(Role),
    /// The path is known, the method is not.
    OtherMethod,
    /// There is nothing.
    Unknown,
}

impl Service {
    /// Whether one question is enough for all who ask it at about the same time.
    pub(super) fn shares(&self, path: &str) -> Sharing {
        let is_in =
            |list: &[(&str, &[&str])]| list.iter().any(|(own, paths)| *own == self.name && paths.contains(&path));
        match () {
            () if is_in(SHARED) => Sharing::Always,
            () if is_in(SHARED_WHERE_ALIKE) => Sharing::WhereAlike,
            () => Sharing::Never,
        }
    }

    /// Whether a path of this service may be asked with this method.
    pub(super) fn allows(&self, method: &str, path: &str) -> Allowed {
        let method = if method == "HEAD" { "GET" } else { method };
        let mut found = Allowed::Unknown;
        for (own, _, role) in self.rules.iter().filter(|(_, pattern, _)| fits(pattern, path)) {
            if *own == method {
                return Allowed::For(*role);
            }
            found = Allowed::OtherMethod;
        }
        found
    }
}

fn fits(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            // What would lead elsewhere is not a name.
            (Some("*"), Some(part)) if !part.trim_start_matches('.').is_empty() => {}
            (Some(wanted), Some(part)) if wanted == part => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> Service {
        SERVICES.into_iter().find(|service| service.name == name).unwrap()
    }

    #[test]
    fn what_is_shared_is_listed_and_holds_no_job() {
        for (name, paths) in SHARED {
            for path in *paths {
                assert!(matches!(service(name).allows("GET", path), Allowed::For(Read)), "{name} {path}");
            }
        }
        for (path, sharing) in [
            ("/v1/queues", Sharing::Always),
            ("/v1/jobs", Sharing::WhereAlike),
            ("/v1/dead-letters", Sharing::WhereAlike),
            ("/v1/jobs/1", Sharing::Never),
            ("/v1/audit", Sharing::Never),
        ] {
            assert_eq!(service("orchestrator").shares(path), sharing, "{path}");
        }
    }

    #[test]
    fn what_is_not_listed_does_not_exist() {
        let orchestrator = service("orchestrator");
        for (method, path, allowed) in [
            ("GET", "/v1/jobs", Allowed::For(Read)),
            ("HEAD", "/v1/jobs/a", Allowed::For(Read)),
            ("POST", "/v1/jobs/a/cancel", Allowed::For(Submit)),
            ("DELETE", "/v1/jobs/a", Allowed::OtherMethod),
            ("GET", "/v1/jobs/a/b/c", Allowed::Unknown),
            ("GET", "/v1/jobs/", Allowed::Unknown),
            ("GET", "/v1/jobs/..", Allowed::Unknown),
            ("GET", "/metrics", Allowed::Unknown),
            ("GET", "/v1/audit", Allowed::For(Admin)),
        ] {
            assert_eq!(orchestrator.allows(method, path), allowed, "{method} {path}");
        }
        assert_eq!(service("prometheus").allows("GET", "/api/v1/admin/tsdb/snapshot"), Allowed::Unknown);
        assert_eq!(service("prometheus").allows("POST", "/api/v1/query"), Allowed::OtherMethod);
        assert_eq!(service("alertmanager").allows("DELETE", "/api/v2/silences"), Allowed::OtherMethod);
    }

    #[test]
    fn a_viewer_changes_nothing() {
        for service in SERVICES {
            assert!(
                service.rules.iter().all(|(method, _, role)| *method == "GET" || *role != Read),
                "{}",
                service.name
            );
        }
    }
}
