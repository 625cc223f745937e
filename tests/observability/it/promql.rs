//! Which metrics and labels an expression names. Whether it is an expression at all, promtool says.
//!
//! Small on purpose: it distinguishes names of metrics from functions, keywords, labels, strings and numbers.

use std::collections::{BTreeMap, BTreeSet};

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Metrics, each with the labels that its selectors name.
    pub metrics: BTreeMap<String, BTreeSet<String>>,
    /// Labels of `by`, `without`, `on`, `ignoring` and `group_left`.
    pub grouping: BTreeSet<String>,
    /// Labels that `label_replace` makes.
    pub made: BTreeSet<String>,
    /// Values of `label="value"`, by metric and label.
    pub values: BTreeSet<(String, String, String)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const KEYWORDS: [&str; 7] = ["and", "or", "unless", "bool", "offset", "inf", "nan"];

pub fn named(expression: &str) -> Named {
    let tokens = tokens(expression);
    let mut found = Named::default();
    let mut at = 0;
    while at < tokens.len() {
        let next = tokens.get(at + 1);
        match &tokens[at] {
            Token::Word(word) if GROUPING.contains(&word.as_str()) && next == Some(&Token::Sign('(')) => {
                at += 2;
                while let Some(Token::Word(label)) = tokens.get(at) {
                    found.grouping.insert(label.clone());
                    at += if tokens.get(at + 1) == Some(&Token::Sign(',')) { 2 } else { 1 };
                }
            }
            Token::Word(word) if word == "label_replace" => {
                // Its labels are the only texts that are names: the second and the fourth argument.
                found.made.extend(label_replaced(&tokens[at..]));
                at += 1;
            }
            Token::Word(word) if KEYWORDS.contains(&word.to_lowercase().as_str()) => at += 1,
            Token::Word(_) if next == Some(&Token::Sign('(')) => at += 1,
            // An aggregation with its grouping before the argument.
            Token::Word(_) if matches!(next, Some(Token::Word(w)) if GROUPING.contains(&w.as_str())) => at += 1,
            Token::Word(metric) => {
                let labels = found.metrics.entry(metric.clone()).or_default();
                at += 1;
                if tokens.get(at) == Some(&Token::Sign('{')) {
                    at += 1;
                    while tokens.get(at).is_some_and(|t| *t != Token::Sign('}')) {
                        if let Token::Word(label) = &tokens[at] {
                            labels.insert(label.clone());
                            let is_plain = tokens.get(at + 1) == Some(&Token::Sign('='));
                            if let (true, Some(Token::Text(value))) = (is_plain, tokens.get(at + 2)) {
                                found.values.insert((metric.clone(), label.clone(), value.clone()));
                            }
                        }
                        at += 1;
                    }
                }
            }
            _ => at += 1,
        }
    }
    found
}

/// The label that a call makes: the first text of the call that is followed by its replacement.
fn label_replaced(call: &[Token]) -> Option<String> {
    let mut depth = 0;
    let mut texts = Vec::new();
    for token in call.iter().skip(1) {
        match token {
            Token::Sign('(' | '{') => depth += 1,
            Token::Sign('}') => depth -= 1,
            Token::Sign(')') => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            Token::Text(text) if depth == 1 => texts.push(text.clone()),
            _ => {}
        }
    }
    texts.into_iter().next()
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut rest = expression.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            '"' | '\'' => {
                let mut text = String::new();
                while let Some(inside) = rest.next() {
                    match inside {
                        '\\' => text.extend(rest.next()),
                        end if end == c => break,
                        other => text.push(other),
                    }
                }
                out.push(Token::Text(text));
            }
            // A range is a duration: its unit is not a name.
            '[' => while rest.next().is_some_and(|c| c != ']') {},
            c if c.is_ascii_digit() => while rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '.').is_some() {},
            c if c.is_ascii_alphabetic() || c == '_' || c == ':' => {
                let mut word = c.to_string();
                while let Some(more) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == ':') {
                    word.push(more);
                }
                out.push(Token::Word(word));
            }
            c if c.is_whitespace() => {}
            other => out.push(Token::Sign(other)),
        }
    }
    out
}

#[test]
fn metrics_and_labels_are_told_from_the_rest() {
    let expression = r#"
        sum by (service, le) (rate(a_total{status=~"5..", route!~"/x|/y", kind="k"}[5m])) / on (service) group_left (team)
          (max without (pod) (b_seconds) > bool 0.5) and c offset 5m unless -deriv(d[10m]) == Inf
          or label_replace(e{x='y'}, "queue", "$1", "consumer", "worker-[^_]+_(.+)")  # f is a comment
    "#;
    let found = named(expression);
    let names: Vec<&str> = found.metrics.keys().map(String::as_str).collect();
    assert_eq!(names, ["a_total", "b_seconds", "c", "d", "e"]);
    let labels = |name: &str| found.metrics[name].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(labels("a_total"), ["kind", "route", "status"]);
    assert_eq!(labels("e"), ["x"]);
    assert_eq!(found.grouping.iter().map(String::as_str).collect::<Vec<_>>(), ["le", "pod", "service", "team"]);
    assert_eq!(found.made.iter().map(String::as_str).collect::<Vec<_>>(), ["queue"]);
    assert!(found.values.contains(&("a_total".into(), "kind".into(), "k".into())));
    assert_eq!(found.values.len(), 2, "a pattern is no value");
}
