//! Where traces go, and how: the variables of OpenTelemetry's exporter, with its rules.

use crate::{Parse, Reader, Setting, Url};

/// Where traces go.
pub const OTEL_EXPORTER_OTLP_ENDPOINT: Setting = Setting::new(
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    None,
    "http:// or https:// URL",
    "The collector that receives traces by OTLP; over HTTP they go to `/v1/traces` below it. Not set: no traces are exported.",
);
/// Where traces go, before the variable of all signals.
pub const OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: Setting = Setting::new(
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    None,
    "http:// or https:// URL",
    "The same for traces only, and wins. Over HTTP it is used as it is, with nothing added.",
);
/// How.
pub const OTEL_EXPORTER_OTLP_PROTOCOL: Setting = Setting::new(
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    Some("grpc"),
    "grpc or http/protobuf",
    "How the collector is spoken to. Collectors take gRPC on port 4317 and HTTP on 4318.",
);
/// How, before the variable of all signals.
pub const OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: Setting = Setting::new(
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    None,
    "grpc or http/protobuf",
    "The same for traces only, and wins.",
)
.default_note("value of OTEL_EXPORTER_OTLP_PROTOCOL");

/// A way to speak to a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// Protobuf in gRPC.
    Grpc,
    /// Protobuf in HTTP/1.1.
    Http,
}

impl Parse for OtlpProtocol {
    fn parse(s: &str) -> Result<Self, String> {
        match s {
            "grpc" => Ok(Self::Grpc),
            "http/protobuf" => Ok(Self::Http),
            _ => Err("is not a protocol that is built in".to_owned()),
        }
    }
    fn placeholder() -> Self {
        Self::Grpc
    }
}

/// The collector of traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otlp {
    /// The very address that is called.
    pub endpoint: Url,
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
}

impl Otlp {
    /// Its settings, as they are listed.
    pub const SETTINGS: [Setting; 4] = [
        OTEL_EXPORTER_OTLP_ENDPOINT,
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
        OTEL_EXPORTER_OTLP_PROTOCOL,
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
    ];

    /// Where traces go, if they go anywhere.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let base = reader.opt::<HttpUrl>(&OTEL_EXPORTER_OTLP_ENDPOINT);
        let own = reader.opt::<HttpUrl>(&OTEL_EXPORTER_OTLP_TRACES_ENDPOINT);
        let shared = reader.get::<OtlpProtocol>(&OTEL_EXPORTER_OTLP_PROTOCOL);
        let protocol = reader.opt::<OtlpProtocol>(&OTEL_EXPORTER_OTLP_TRACES_PROTOCOL).unwrap_or(shared);
        let endpoint = match (own, base, protocol) {
            (Some(own), _, _) => own.0,
            (None, base, OtlpProtocol::Grpc) => base?.0,
            (None, base, OtlpProtocol::Http) => below(base?.0),
        };
        Some(Self { endpoint, protocol })
    }
}

struct HttpUrl(Url);

impl Parse for HttpUrl {
    fn parse(s: &str) -> Result<Self, String> {
        let url = <Url as Parse>::parse(s)?;
        if matches!(url.scheme(), "http" | "https") {
            Ok(Self(url))
        } else {
            Err("is not an http or https URL".to_owned())
        }
    }
    fn placeholder() -> Self {
        Self(Url::placeholder())
    }
}

/// The path of traces below a base.
fn below(mut base: Url) -> Url {
    let path = format!("{}/v1/traces", base.path().trim_end_matches('/'));
    base.set_path(&path);
    base
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Faults;
    use std::collections::HashMap;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<(String, OtlpProtocol)>, Faults> {
        let source: HashMap<String, String> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut reader = Reader::new(&source);
        let found = Otlp::read(&mut reader).map(|otlp| (otlp.endpoint.to_string(), otlp.protocol));
        reader.finish().map(|_| found)
    }

    const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");

    #[test]
    fn http_goes_below_the_base_and_to_its_own_endpoint_as_it_is() {
        use OtlpProtocol::{Grpc, Http};
        for (pairs, endpoint, protocol) in [
            (&[(BASE, "http://c:4317")][..], "http://c:4317/", Grpc),
            (&[(BASE, "http://c:4318"), HTTP], "http://c:4318/v1/traces", Http),
            (&[(BASE, "http://c:4318/"), HTTP], "http://c:4318/v1/traces", Http),
            (&[(BASE, "https://c/in/"), HTTP], "https://c/in/v1/traces", Http),
            (&[(BASE, "https://c/in"), HTTP], "https://c/in/v1/traces", Http),
            (&[(OWN, "http://c:4318"), HTTP], "http://c:4318/", Http),
            (&[(OWN, "http://c/mine"), (BASE, "http://other"), HTTP], "http://c/mine", Http),
            (&[(BASE, "http://c"), HTTP, ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")], "http://c/", Grpc),
            (
                &[(BASE, "http://c"), ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")],
                "http://c/v1/traces",
                Http,
            ),
        ] {
            assert_eq!(read(pairs).unwrap(), Some((endpoint.to_owned(), protocol)), "{pairs:?}");
        }
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[HTTP]).unwrap(), None, "a protocol alone sends nothing");
    }

    #[test]
    fn what_is_not_built_in_is_a_fault_and_not_silence() {
        for key in ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] {
            for bad in ["http/json", "http", "GRPC"] {
                let faults = read(&[(BASE, "http://c"), (key, bad)]).unwrap_err();
                assert!(faults.names(key) && faults.to_string().contains("http/protobuf"), "{faults}");
            }
        }
        assert!(read(&[(OWN, "ftp://x")]).unwrap_err().names(OWN));
    }
}
