//! JSON text as a caller wrote it: judged, and brought into one form without losing a digit.
//!
//! Numbers keep the text they came with, because two texts that a float cannot tell apart may be two
//! numbers: `1` and `1.0` are different here. Pure; recursion is bounded by [`DEPTH_MAX`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

/// Levels of objects and arrays, the outermost included. What most readers of JSON take.
pub const DEPTH_MAX: usize = 128;
/// Longest path that a fault shows, bytes.
const PATH_MAX_BYTES: usize = 160;

/// What is wrong with a text, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}{}", Place(path))]
pub struct Fault {
    /// What it is.
    pub what: What,
    /// Where, such as `.a[3].b`; empty at the top and where it is unknown.
    pub path: String,
}

/// What can be wrong with a text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum What {
    /// It is not JSON.
    #[error("is not JSON: {0}")]
    Syntax(String),
    /// Objects and arrays lie too deep in each other.
    #[error("is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// The character NUL, which databases and programs do not take.
    #[error("must not contain the character NUL (\\u0000)")]
    Nul,
    /// Half of a pair of surrogates: no character, and strict readers refuse the whole text.
    #[error("has half a surrogate pair (\\ud800 to \\udfff), which is not a character")]
    LoneSurrogate,
    /// Two fields of one object with the same name: readers differ about which one counts.
    #[error("has the same field twice in one object")]
    DuplicateField,
}

struct Place<'p>(&'p str);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " at {}", self.0) }
    }
}

impl Fault {
    fn of(what: What) -> Self {
        Self { what, path: String::new() }
    }
    fn below(mut self, step: &str) -> Self {
        if self.path.len() + step.len() <= PATH_MAX_BYTES {
            self.path.insert_str(0, step);
        } else if !self.path.starts_with('…') {
            self.path.insert(0, '…');
        }
        self
    }
}

/// Whether the text is JSON that every reader takes, and takes for the same.
///
/// # Errors
/// The first [`Fault`].
pub fn check(text: &str) -> Result<(), Fault> {
    read(text).map(drop)
}

/// The text in the one form that equal texts share: fields sorted at every depth, no blanks, strings in
/// one spelling, numbers as they were written.
///
/// # Errors
/// The first [`Fault`].
pub fn canonical(text: &str) -> Result<String, Fault> {
    let value = read(text)?;
    let mut out = String::with_capacity(text.len());
    write(&mut out, &value);
    Ok(out)
}

enum Value<'t> {
    /// A number, true, false or null, as it was written.
    Plain(&'t str),
    Text(Cow<'t, str>),
    List(Vec<Value<'t>>),
    Object(BTreeMap<Cow<'t, str>, Value<'t>>),
}

fn read(text: &str) -> Result<Value<'_>, Fault> {
    // The grammar is serde's to judge, without recursion; what comes after may trust it.
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|e| Fault::of(What::Syntax(e.to_string())))?;
    Reader { text, at: 0 }.value(DEPTH_MAX)
}

/// Reads a text whose grammar is known to be right.
struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or_default()
    }

    fn value(&mut self, depth: usize) -> Result<Value<'t>, Fault> {
        match self.peek() {
            b'{' => self.object(depth.checked_sub(1).ok_or_else(|| Fault::of(What::TooDeep))?),
            b'[' => self.list(depth.checked_sub(1).ok_or_else(|| Fault::of(What::TooDeep))?),
            b'"' => self.string().map(Value::Text),
            _ => {
                let rest = &self.text[self.at..];
                let end = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
                self.at += end;
                Ok(Value::Plain(&rest[..end]))
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'t>, Fault> {
        let mut fields = BTreeMap::new();
        self.at += 1;
        while self.peek() != b'}' {
            if self.peek() == b',' {
                self.at += 1;
                self.peek();
            }
            let name = self.string()?;
            // The colon.
            self.peek();
            self.at += 1;
            let step = |name: &str| format!(".{}", name.chars().take(64).collect::<String>());
            let value = self.value(depth).map_err(|f| f.below(&step(&name)))?;
            match fields.entry(name) {
                Entry::Vacant(place) => _ = place.insert(value),
                Entry::Occupied(taken) => return Err(Fault::of(What::DuplicateField).below(&step(taken.key()))),
            }
        }
        self.at += 1;
        Ok(Value::Object(fields))
    }

    fn list(&mut self, depth: usize) -> Result<Value<'t>, Fault> {
        let mut items = Vec::new();
        self.at += 1;
        while self.peek() != b']' {
            if self.peek() == b',' {
                self.at += 1;
            }
            let item = self.value(depth).map_err(|f| f.below(&format!("[{}]", items.len())))?;
            items.push(item);
        }
        self.at += 1;
        Ok(Value::List(items))
    }

    /// A string, decoded. Borrowed where it has no escapes.
    fn string(&mut self) -> Result<Cow<'t, str>, Fault> {
        self.at += 1;
        let rest = &self.text[self.at..];
        let plain = rest.find(['"', '\\']).unwrap_or(rest.len());
        if rest.as_bytes().get(plain) == Some(&b'"') {
            self.at += plain + 1;
            return Ok(Cow::Borrowed(&rest[..plain]));
        }
        let (mut out, mut chars) = (String::new(), rest.char_indices());
        while let Some((index, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += index + 1;
                    break;
                }
                '\\' => out.push(escaped(&mut chars)?),
                other => out.push(other),
            }
        }
        Ok(Cow::Owned(out))
    }
}

/// The character that an escape stands for; the backslash was read.
fn escaped(chars: &mut std::str::CharIndices<'_>) -> Result<char, Fault> {
    let c = match chars.next().map(|(_, c)| c) {
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('u') => return unicode(chars),
        // A quote, a slash or a backslash.
        other => other.unwrap_or_default(),
    };
    Ok(c)
}

fn unicode(chars: &mut std::str::CharIndices<'_>) -> Result<char, Fault> {
    let lone = || Fault::of(What::LoneSurrogate);
    match hex4(chars) {
        0 => Err(Fault::of(What::Nul)),
        high @ 0xd800..=0xdbff => {
            let escape = (chars.next().map(|(_, c)| c), chars.next().map(|(_, c)| c));
            let low = if escape == (Some('\\'), Some('u')) { hex4(chars) } else { 0 };
            let pair = 0x10000 + ((high - 0xd800) << 10);
            if !(0xdc00..=0xdfff).contains(&low) {
                return Err(lone());
            }
            char::from_u32(pair + (low - 0xdc00)).ok_or_else(lone)
        }
        code => char::from_u32(code).ok_or_else(lone),
    }
}

fn hex4(chars: &mut std::str::CharIndices<'_>) -> u32 {
    chars.take(4).fold(0, |code, (_, c)| code << 4 | c.to_digit(16).unwrap_or_default())
}

fn write(out: &mut String, value: &Value<'_>) {
    match value {
        Value::Plain(text) => out.push_str(text),
        Value::Text(text) => string(out, text),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (index, (name, value)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                string(out, name);
                out.push(':');
                write(out, value);
            }
            out.push('}');
        }
    }
}

fn string(out: &mut String, text: &str) {
    out.push_str(&serde_json::to_string(text).expect("a string is always JSON"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (What, String) {
        let f = check(text).unwrap_err();
        (f.what, f.path)
    }

    #[test]
    fn the_form_is_sorted_and_without_blanks_at_every_depth() {
        let text = r#" { "b" : [ { "z":1, "a":null } , "\u0041\/" , [ ], { } ], "a" : { "d":1.50,"c":true } } "#;
        assert_eq!(canonical(text).unwrap(), r#"{"a":{"c":true,"d":1.50},"b":[{"a":null,"z":1},"A/",[],{}]}"#);
        assert_eq!(canonical("[\"\\ud83d\\ude00\\n\\u00e9\"]").unwrap(), "[\"😀\\né\"]");
    }

    #[test]
    fn numbers_keep_their_digits() {
        for (one, other) in [
            ("123456789012345678901", "123456789012345678902"),
            ("0.1", "0.10000000000000000555"),
            ("1", "1.0"),
            ("1e2", "100"),
            ("-0", "0"),
        ] {
            let of = |n: &str| canonical(&format!("{{\"n\":{n}}}")).unwrap();
            assert_ne!(of(one), of(other));
            assert_eq!(of(one), format!("{{\"n\":{one}}}"));
        }
    }

    #[test]
    fn depth_is_bounded_with_the_outermost_level_counted() {
        let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n - 1), "]".repeat(n - 1));
        assert!(check(&nested(DEPTH_MAX)).is_ok());
        let (what, path) = fault(&nested(DEPTH_MAX + 1));
        assert_eq!(what, What::TooDeep);
        assert!(path.starts_with('…') && path.len() <= PATH_MAX_BYTES + 8, "{path}");
        // A stack that grows with the text would be gone by now.
        assert_eq!(fault(&nested(300_000)).0, What::TooDeep);
        let objects = format!("{}1{}", "{\"a\":".repeat(129), "}".repeat(129));
        assert_eq!(fault(&objects).0, What::TooDeep);
    }

    #[test]
    fn a_nul_is_a_nul_and_its_spelling_is_not() {
        assert_eq!(fault(r#"{"a":["x",{"b":"c\u0000"}]}"#), (What::Nul, ".a[1].b".into()));
        assert_eq!(fault(r#"{"\u0000":1}"#).0, What::Nul);
        for fine in [r#"{"a":"\\u0000"}"#, r#"{"a":"\\\\u0000"}"#, r#"{"a":"u0000"}"#, r#"{"\\u0000":"\\u0000"}"#] {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
        assert_eq!(fault(r#"{"a":"\\\u0000"}"#).0, What::Nul);
    }

    #[test]
    fn half_a_pair_is_no_character() {
        for bad in
            [r#""\ud800""#, r#""\udc00""#, r#""\ud800x""#, r#""\ud800\n""#, r#""\ud800\ud800""#, r#""\udfff\ud800""#]
        {
            assert_eq!(fault(&format!("{{\"k\":[{bad}]}}")), (What::LoneSurrogate, ".k[0]".into()), "{bad}");
        }
        assert_eq!(fault(r#"{"\ud800":1}"#).0, What::LoneSurrogate);
        assert_eq!(check(r#"{"a":"\ud83d\ude00","b":"\\ud800"}"#), Ok(()));
    }

    #[test]
    fn a_field_given_twice_is_told_however_it_is_spelled() {
        assert_eq!(fault(r#"{"x":{"a":1,"b":2,"\u0061":3}}"#), (What::DuplicateField, ".x.a".into()));
        assert_eq!(check(r#"{"a":{"a":1},"b":{"a":2}}"#), Ok(()));
    }

    #[test]
    fn what_is_no_json_is_told_by_its_place() {
        for bad in ["", "{", "{\"a\":}", "{\"a\":1,}", "{} {}", "nul", "{\"a\":01}", "\"\\x\""] {
            let f = check(bad).unwrap_err();
            assert!(f.to_string().starts_with("is not JSON: "), "{bad}: {f}");
        }
    }
}
