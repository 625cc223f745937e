//! Who makes streams, fixed consumers and buckets: each service its own, or one identity all of them.
//!
//! On a server of one's own, services make what they need. Where each has a user with the least of rights, only the
//! topology's may create and change: the others look, and wait for what is missing.

use agentforge_config::{Common, Parse, Reader, Setting};

/// Who makes what is missing.
pub const NATS_TOPOLOGY: Setting = Setting::new(
    "NATS_TOPOLOGY",
    None,
    "make or wait",
    "Whether this service makes its streams and buckets, or waits for `agentforge-orchestrator topology` to make them.",
)
.default_note("make in ENV=dev, else wait");

/// Who makes what is missing and changes what differs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Maker {
    /// This process.
    #[default]
    Make,
    /// Another one: here it is only looked at.
    Wait,
}

impl Maker {
    /// The declarations, in the order of reading.
    pub const SETTINGS: &'static [Setting] = &[NATS_TOPOLOGY];

    /// Reads the setting; its default is that of the environment.
    pub fn read(reader: &mut Reader<'_>, common: &Common) -> Self {
        let default = if common.is_dev() { Self::Make } else { Self::Wait };
        reader.opt(&NATS_TOPOLOGY).unwrap_or(default)
    }
}

impl Parse for Maker {
    fn parse(s: &str) -> Result<Self, String> {
        match s {
            "make" => Ok(Self::Make),
            "wait" => Ok(Self::Wait),
            _ => Err("expected make or wait".to_owned()),
        }
    }
    fn placeholder() -> Self {
        Self::Make
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(pairs: &[(&str, &str)]) -> Result<Maker, String> {
        let source: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let mut reader = Reader::new(&source);
        let common = Common::read(&mut reader);
        let maker = Maker::read(&mut reader, &common);
        reader.finish().map(|_| maker).map_err(|f| f.to_string())
    }

    #[test]
    fn services_make_their_streams_in_dev_alone_unless_they_are_told_to() {
        assert_eq!(read(&[]), Ok(Maker::Make));
        assert_eq!(read(&[("ENV", "production")]), Ok(Maker::Wait));
        assert_eq!(read(&[("ENV", "production"), ("NATS_TOPOLOGY", "make")]), Ok(Maker::Make));
        assert_eq!(read(&[("NATS_TOPOLOGY", "wait")]), Ok(Maker::Wait));
        assert!(read(&[("NATS_TOPOLOGY", "maybe")]).unwrap_err().contains("NATS_TOPOLOGY"));
    }
}
