//! Typed identifiers and the values of `Nats-Msg-Id`.
//!
//! Owns the grammar of every name that reaches a subject, a durable consumer or a key.
//! Values only: nothing here does I/O, reads a clock (but for UUIDv7) or knows JetStream.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod msg_id;
mod name;

pub use msg_id::MsgId;
pub use name::{AgentId, Mission, NameError, Queue, Site, ToolName};

use serde::{Deserialize, Serialize};
use std::{fmt, num::NonZeroU32, str::FromStr};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new UUIDv7: sorts by the moment it was made.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
            /// Takes any UUID; callers may bring their own.
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }
            /// The UUID inside.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
            /// The 16 bytes that the stores keep.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_hyphenated())
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                Uuid::parse_str(s).map(Self).map_err(|_| NameError::not_a_uuid(s))
            }
        }
    };
}

uuid_id!(
    /// A job. UUIDv7; the client may supply it.
    JobId
);
uuid_id!(
    /// A schedule that makes jobs.
    ScheduleId
);
uuid_id!(
    /// Work on many jobs that continues without its caller.
    OperationId
);

/// One try at a job, numbered from 1 by the orchestrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(NonZeroU32);

impl Attempt {
    /// The first try.
    pub const FIRST: Self = Self(NonZeroU32::MIN);
    /// `None` for 0: attempts start at 1.
    pub const fn new(n: u32) -> Option<Self> {
        match NonZeroU32::new(n) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }
    /// The number, 1 or more.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
    /// The try after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_through_text() {
        let id = JobId::generate();
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        assert_eq!(serde_json_like(&id), id.to_string());
        assert!("not-a-uuid".parse::<JobId>().is_err());
    }

    fn serde_json_like(id: &JobId) -> String {
        id.as_uuid().as_hyphenated().to_string()
    }

    #[test]
    fn generated_ids_sort_by_time() {
        let ids: Vec<_> = (0..100).map(|_| JobId::generate()).collect();
        assert!(ids.windows(2).all(|w| w[0] < w[1]));
    }

    #[test]
    fn attempts_count_from_one() {
        assert_eq!(Attempt::new(0), None);
        assert_eq!(Attempt::FIRST.next().get(), 2);
    }
}
