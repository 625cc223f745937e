//! What a caller may do.

/// What a caller may do. Of the first four, each includes the one before it; `Admin` includes all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// `viewer`: reads what the API shows; changes nothing.
    Read,
    /// `submitter`: submits and cancels jobs too.
    Submit,
    /// `operator`: keeps it running too: runs and pauses schedules, redrives, discards, cancels operations.
    Operator,
    /// `alerts`: hands over alerts, and nothing else. For a monitoring system, whose configuration many can read.
    Alerts,
    /// `admin`: everything.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Read, Self::Submit, Self::Operator, Self::Alerts, Self::Admin];

    /// Whether this role may do what needs the other.
    pub const fn includes(self, needed: Self) -> bool {
        match (self, needed) {
            (Self::Admin, _) => true,
            (Self::Alerts, needed) => matches!(needed, Self::Alerts),
            (_, Self::Alerts) => false,
            (has, needed) => has as u8 >= needed as u8,
        }
    }

    /// The word used in settings and in errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "viewer",
            Self::Submit => "submitter",
            Self::Operator => "operator",
            Self::Alerts => "alerts",
            Self::Admin => "admin",
        }
    }

    /// The role with this word. `read` and `submit` are the names that two of them had first.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "read" => Some(Self::Read),
            "submit" => Some(Self::Submit),
            word => Self::ALL.into_iter().find(|role| role.as_str() == word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_includes_the_weaker_ones_and_alerts_stand_apart() {
        use Role::{Admin, Alerts, Operator, Read, Submit};
        let included: [(Role, &[Role]); 5] = [
            (Read, &[Read]),
            (Submit, &[Read, Submit]),
            (Operator, &[Read, Submit, Operator]),
            (Alerts, &[Alerts]),
            (Admin, &Role::ALL),
        ];
        for (role, may) in included {
            for needed in Role::ALL {
                assert_eq!(role.includes(needed), may.contains(&needed), "{role:?} for {needed:?}");
            }
        }
    }

    #[test]
    fn words_are_read_back_and_the_old_ones_too() {
        for role in Role::ALL {
            assert_eq!(Role::from_word(role.as_str()), Some(role));
        }
        assert_eq!((Role::from_word("read"), Role::from_word("submit")), (Some(Role::Read), Some(Role::Submit)));
        for wrong in ["", "root", "Admin", "viewer "] {
            assert_eq!(Role::from_word(wrong), None, "{wrong}");
        }
    }
}
