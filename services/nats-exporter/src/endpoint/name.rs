//! The endpoints by name: how each is called in settings and labels, and what is requested.

use std::fmt;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// The server itself: traffic, limits, memory.
    Varz,
    /// Connections, summed up.
    Connz,
    /// Connections, each one.
    ConnzDetailed,
    /// Routes to the other servers of the cluster.
    Routez,
    /// Numbers of subscriptions and of their cache.
    Subsz,
    /// Whether the server is healthy, JetStream included.
    Healthz,
    /// Health of JetStream: enabled.
    HealthzJsEnabledOnly,
    /// Health of JetStream: the server's part.
    HealthzJsServerOnly,
    /// Traffic by account.
    Accstatz,
    /// Details by account.
    Accountz,
    /// Connections to other clusters.
    Gatewayz,
    /// Connections of leaf nodes, which are whole sites.
    Leafz,
    /// JetStream: accounts, streams and consumers.
    Jsz,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Varz,
        Self::Connz,
        Self::ConnzDetailed,
        Self::Routez,
        Self::Subsz,
        Self::Healthz,
        Self::HealthzJsEnabledOnly,
        Self::HealthzJsServerOnly,
        Self::Accstatz,
        Self::Accountz,
        Self::Gatewayz,
        Self::Leafz,
        Self::Jsz,
    ];

    /// The name in settings and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Varz => "varz",
            Self::Connz => "connz",
            Self::ConnzDetailed => "connz_detailed",
            Self::Routez => "routez",
            Self::Subsz => "subsz",
            Self::Healthz => "healthz",
            Self::HealthzJsEnabledOnly => "healthz_js_enabled_only",
            Self::HealthzJsServerOnly => "healthz_js_server_only",
            Self::Accstatz => "accstatz",
            Self::Accountz => "accountz",
            Self::Gatewayz => "gatewayz",
            Self::Leafz => "leafz",
            Self::Jsz => "jsz",
        }
    }

    /// By its name; `subz` is what the known exporter calls `subsz`.
    pub fn by_name(name: &str) -> Option<Self> {
        let name = if name == "subz" { "subsz" } else { name };
        Self::ALL.into_iter().find(|endpoint| endpoint.as_str() == name)
    }

    /// Path and query of the request; of the first where there are several.
    pub fn path(self) -> &'static str {
        match self {
            Self::Varz => "varz",
            Self::Connz | Self::ConnzDetailed => "connz",
            Self::Routez => "routez",
            Self::Subsz => "subsz",
            Self::Healthz => "healthz",
            Self::HealthzJsEnabledOnly => "healthz?js-enabled-only=true",
            Self::HealthzJsServerOnly => "healthz?js-server-only=true",
            Self::Accstatz => "accstatz?unused=1",
            Self::Accountz => "accountz",
            Self::Gatewayz => "gatewayz",
            Self::Leafz => "leafz",
            Self::Jsz => "jsz",
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_has_its_name() {
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::by_name(endpoint.as_str()), Some(endpoint));
        }
        assert_eq!(Endpoint::by_name("subz"), Some(Endpoint::Subsz));
        assert_eq!(Endpoint::by_name("channelz"), None);
    }
}
