//! An item of the board: its fields with their limits, its states, and what may be done in which. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Characters of the text.
pub const TEXT_MAX: usize = 140;
/// Characters of problem and hypothesis.
pub const LONG_MAX: usize = 4_000;
/// Tags of an item.
pub const TAGS_MAX: usize = 10;
/// Characters of a tag.
pub const TAG_MAX: usize = 32;
/// Characters of an owner.
pub const OWNER_MAX: usize = 64;
/// The largest impact.
pub const IMPACT_MAX: i64 = 100;

/// Where an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// No one has read it yet.
    New,
    /// It is worth a decision.
    Triaged,
    /// It became a job.
    Approved,
    /// It will not become one.
    Rejected,
    /// It is finished.
    Done,
}

impl Status {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::New, Self::Triaged, Self::Approved, Self::Rejected, Self::Done];

    /// The word in the API and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Triaged => "triaged",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Done => "done",
        }
    }

    /// The state with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// As it is stored; never renumbered.
    pub const fn number(self) -> i64 {
        self as i64
    }

    /// The state with this number.
    pub fn from_number(number: i64) -> Option<Self> {
        usize::try_from(number).ok().and_then(|at| Self::ALL.get(at).copied())
    }

    /// The word for clients of the todo routes.
    pub const fn todo(self) -> &'static str {
        match self {
            Self::Done => TODO_DONE,
            _ => TODO_NOT_DONE,
        }
    }
}

/// The todo routes' word for what is finished.
pub const TODO_DONE: &str = "done";
/// Their word for everything else.
pub const TODO_NOT_DONE: &str = "not-done";

/// A step that somebody takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is worth a decision; also takes a rejection back.
    Triage,
    /// It becomes a job.
    Approve,
    /// It will not become one.
    Reject,
    /// It is finished.
    Done,
    /// A client of the todo routes finishes it: from any state, as those routes always did.
    TodoDone,
    /// Such a client takes that back.
    TodoNotDone,
}

impl Step {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Triage => "triaged",
            Self::Approve => "approved",
            Self::Reject => "rejected",
            Self::Done | Self::TodoDone => "done",
            Self::TodoNotDone => "not-done",
        }
    }
}

/// Where a step leads, from each state.
///
/// # Errors
/// That it may not be taken, in words.
pub fn step(item: &Item, step: Step) -> Result<Status, String> {
    use Status::{Approved, Done, New, Rejected, Triaged};
    match (item.status, step) {
        (New | Rejected, Step::Triage) => Ok(Triaged),
        (New | Triaged, Step::Approve) => Ok(Approved),
        (New | Triaged, Step::Reject) => Ok(Rejected),
        (New | Triaged | Approved, Step::Done) | (_, Step::TodoDone) => Ok(Done),
        // What has a job was approved.
        (Done, Step::TodoNotDone) if item.job_id.is_some() => Ok(Approved),
        (Done, Step::TodoNotDone) => Ok(New),
        (other, Step::TodoNotDone) => Ok(other),
        (status, step) => Err(format!("the item is {}: it cannot become {}", status.as_str(), step.as_str())),
    }
}

/// An item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Made here; later ones are greater.
    pub id: Uuid,
    /// What it is about.
    pub text: String,
    /// What is wrong today.
    pub problem: Option<String>,
    /// What would help.
    pub hypothesis: Option<String>,
    /// In alphabetical order, each once.
    pub tags: Vec<String>,
    /// Who looks after it.
    pub owner: Option<String>,
    /// How much it matters, 0 to 100.
    pub impact: Option<i64>,
    /// Where it is.
    pub status: Status,
    /// The job that it became.
    pub job_id: Option<Uuid>,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed; null before that.
    pub updated_at: Option<Timestamp>,
    /// Counts the changes; also the ETag.
    pub version: i64,
}

/// What a caller gives for a new one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewItem {
    /// What it is about. `title` is the same.
    #[serde(alias = "title")]
    pub text: String,
    /// What is wrong today.
    #[serde(default)]
    pub problem: Option<String>,
    /// What would help.
    #[serde(default)]
    pub hypothesis: Option<String>,
    /// For filters.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Who looks after it.
    #[serde(default)]
    pub owner: Option<String>,
    /// How much it matters. `impact_score` is the same.
    #[serde(default, alias = "impact_score")]
    pub impact: Option<i64>,
}

/// What a caller changes: absent fields stay, null empties.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// What it is about. `title` is the same.
    #[serde(default, alias = "title")]
    pub text: Option<String>,
    /// What is wrong today.
    #[serde(default, deserialize_with = "given")]
    pub problem: Option<Option<String>>,
    /// What would help.
    #[serde(default, deserialize_with = "given")]
    pub hypothesis: Option<Option<String>>,
    /// For filters.
    #[serde(default)]
    pub tags: Option<Vec<String>>,
    /// Who looks after it.
    #[serde(default, deserialize_with = "given")]
    pub owner: Option<Option<String>>,
    /// How much it matters. `impact_score` is the same.
    #[serde(default, alias = "impact_score", deserialize_with = "given")]
    pub impact: Option<Option<i64>>,
}

/// Keeps null and absent apart.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct Fault {
    /// Which.
    pub field: &'static str,
    /// The rule, with its limit.
    pub problem: String,
}

impl NewItem {
    /// The item, if every field keeps its rule.
    ///
    /// # Errors
    /// [`Fault`], the first.
    pub fn into_item(self, created_by: &str, now: Timestamp) -> Result<Item, Fault> {
        Ok(Item {
            id: Uuid::now_v7(),
            text: text(self.text)?,
            problem: long("problem", self.problem)?,
            hypothesis: long("hypothesis", self.hypothesis)?,
            tags: tags(self.tags)?,
            owner: owner(self.owner)?,
            impact: impact(self.impact)?,
            status: Status::New,
            job_id: None,
            created_by: created_by.to_owned(),
            created_at: now,
            updated_at: None,
            version: 1,
        })
    }
}

impl Patch {
    /// The item as it is afterwards.
    ///
    /// # Errors
    /// [`Fault`], the first.
    pub fn apply(self, mut item: Item) -> Result<Item, Fault> {
        if let Some(given) = self.text {
            item.text = text(given)?;
        }
        if let Some(given) = self.problem {
            item.problem = long("problem", given)?;
        }
        if let Some(given) = self.hypothesis {
            item.hypothesis = long("hypothesis", given)?;
        }
        if let Some(given) = self.tags {
            item.tags = tags(given)?;
        }
        if let Some(given) = self.owner {
            item.owner = owner(given)?;
        }
        if let Some(given) = self.impact {
            item.impact = impact(given)?;
        }
        Ok(item)
    }
}

fn fault(field: &'static str, problem: impl Into<String>) -> Fault {
    Fault { field, problem: problem.into() }
}

/// Any text but the one character that a database cannot hold.
fn bounded(field: &'static str, text: String, min: usize, max: usize) -> Result<String, Fault> {
    let length = text.chars().count();
    if length < min || length > max {
        return Err(fault(field, format!("has {length} characters; {min} to {max} are allowed")));
    }
    if text.contains('\0') {
        return Err(fault(field, "contains U+0000"));
    }
    Ok(text)
}

/// Checks a text.
///
/// # Errors
/// [`Fault`].
pub fn text(text: String) -> Result<String, Fault> {
    bounded("text", text, 1, TEXT_MAX)
}

fn long(field: &'static str, text: Option<String>) -> Result<Option<String>, Fault> {
    text.filter(|text| !text.is_empty()).map(|text| bounded(field, text, 1, LONG_MAX)).transpose()
}

fn tags(given: Vec<String>) -> Result<Vec<String>, Fault> {
    let mut all = BTreeSet::new();
    for tag in given {
        let tag = tag.trim().to_lowercase();
        let is_tag = !tag.is_empty() && !tag.contains(|c: char| c.is_control() || c.is_whitespace() || c == ',');
        if !is_tag || tag.chars().count() > TAG_MAX {
            let rule = format!("has {tag:.40?}: a tag is 1 to {TAG_MAX} characters without blanks and commas");
            return Err(fault("tags", rule));
        }
        all.insert(tag);
    }
    if all.len() > TAGS_MAX {
        return Err(fault("tags", format!("has {}; at most {TAGS_MAX} are allowed", all.len())));
    }
    Ok(all.into_iter().collect())
}

fn owner(given: Option<String>) -> Result<Option<String>, Fault> {
    let Some(owner) = given.map(|owner| owner.trim().to_owned()).filter(|owner| !owner.is_empty()) else {
        return Ok(None);
    };
    if owner.contains(char::is_control) {
        return Err(fault("owner", "contains a control character"));
    }
    bounded("owner", owner, 1, OWNER_MAX).map(Some)
}

fn impact(given: Option<i64>) -> Result<Option<i64>, Fault> {
    match given {
        Some(impact) if !(0..=IMPACT_MAX).contains(&impact) => {
            Err(fault("impact", format!("is {impact}; 0 to {IMPACT_MAX} are allowed")))
        }
        given => Ok(given),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(status: Status) -> Item {
        let new = NewItem { text: "x".into(), ..NewItem::default() };
        Item { status, ..new.into_item("ada", Timestamp::UNIX_EPOCH).unwrap() }
    }

    #[test]
    fn steps_lead_where_the_table_says_and_nowhere_else() {
        use Status::{Approved, Done, New, Rejected, Triaged};
        // From new, triaged, approved, rejected, done.
        let table = [
            (Step::Triage, [Some(Triaged), None, None, Some(Triaged), None]),
            (Step::Approve, [Some(Approved), Some(Approved), None, None, None]),
            (Step::Reject, [Some(Rejected), Some(Rejected), None, None, None]),
            (Step::Done, [Some(Done), Some(Done), Some(Done), None, None]),
            (Step::TodoDone, [Some(Done); 5]),
            (Step::TodoNotDone, [Some(New), Some(Triaged), Some(Approved), Some(Rejected), Some(New)]),
        ];
        for (taken, expected) in table {
            for (from, to) in Status::ALL.into_iter().zip(expected) {
                let found = step(&item(from), taken);
                assert_eq!(found.clone().ok(), to, "{from:?} {taken:?}");
                assert!(found.err().is_none_or(|text| text.contains(from.as_str())));
            }
        }
        let with_job = Item { job_id: Some(Uuid::nil()), ..item(Done) };
        assert_eq!(step(&with_job, Step::TodoNotDone), Ok(Approved));
    }

    #[test]
    fn states_keep_their_numbers() {
        for (n, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!((status.number(), Status::from_number(n as i64)), (n as i64, Some(status)));
            assert_eq!(Status::from_word(status.as_str()), Some(status));
        }
        assert_eq!((Status::from_number(5), Status::from_number(-1), Status::from_word("x")), (None, None, None));
    }

    #[test]
    fn fields_keep_their_limits_counted_in_characters() {
        let new = |json: &str| serde_json::from_str::<NewItem>(json).unwrap().into_item("ada", Timestamp::UNIX_EPOCH);
        let good = new(&format!(
            r#"{{"title":"{}","tags":[" B ","a","b"],"owner":" eve ","impact_score":100}}"#,
            "ü".repeat(140)
        ));
        let good = good.unwrap();
        assert_eq!(
            (good.tags, good.owner.as_deref(), good.impact),
            (vec!["a".into(), "b".into()], Some("eve"), Some(100))
        );
        for (json, field) in [
            (r#"{"text":""}"#.to_owned(), "text"),
            (format!(r#"{{"text":"{}"}}"#, "ü".repeat(141)), "text"),
            (r#"{"text":"a\u0000"}"#.to_owned(), "text"),
            (format!(r#"{{"text":"a","problem":"{}"}}"#, "p".repeat(4_001)), "problem"),
            (r#"{"text":"a","tags":["a b"]}"#.to_owned(), "tags"),
            (r#"{"text":"a","tags":["1","2","3","4","5","6","7","8","9","10","11"]}"#.to_owned(), "tags"),
            (format!(r#"{{"text":"a","owner":"{}"}}"#, "o".repeat(65)), "owner"),
            (r#"{"text":"a","impact":101}"#.to_owned(), "impact"),
            (r#"{"text":"a","impact":-1}"#.to_owned(), "impact"),
        ] {
            assert_eq!(new(&json).unwrap_err().field, field, "{json}");
        }
    }

    #[test]
    fn a_patch_tells_null_from_absent() {
        let before = Item { owner: Some("eve".into()), impact: Some(3), ..item(Status::New) };
        let patch: Patch = serde_json::from_str(r#"{"owner":null,"problem":"p"}"#).unwrap();
        let after = patch.apply(before.clone()).unwrap();
        assert_eq!((after.owner, after.impact, after.problem.as_deref()), (None, Some(3), Some("p")));
        assert!(serde_json::from_str::<Patch>(r#"{"status":"done"}"#).is_err(), "states change by steps");
        assert_eq!(Patch::default().apply(before.clone()).unwrap(), before);
    }
}
