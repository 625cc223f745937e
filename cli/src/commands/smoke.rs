//! `agentforge smoke`: whether people can use the console: a login, a protected page, a renewal, the metrics.
//!
//! Asks as a browser would, and logs out at the end. The password comes from standard input or the environment.

use agentforge_client::rest::{self, Answer};
use agentforge_terminal::{FAILED, Failure, GREEN, Output, RED, Result, clean, styled};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    io::{IsTerminal, Read},
    time::Duration,
};

/// For one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The maximum length of a detail.
const DETAIL_CHARS: usize = 200;
/// More is not a password.
const INPUT_BYTES_MAX: u64 = 4096;

/// What to ask.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge smoke --user alice < password.txt
  agentforge smoke --base https://console.example --user alice --json < password.txt
  agentforge smoke --user alice --metrics http://127.0.0.1:7783 < password.txt

Exit code 1 when a step fails.")]
pub struct Args {
    /// The console's address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:5125")]
    base: String,
    /// Who logs in; the password is read from standard input
    #[arg(long, value_name = "USER")]
    user: String,
    /// The console's address of metrics, to see that the login was counted
    #[arg(long, value_name = "URL")]
    metrics: Option<String>,
}

#[derive(Debug, Serialize)]
struct Step {
    name: &'static str,
    ok: bool,
    detail: String,
}

/// Takes the steps; those behind one that failed are not taken.
///
/// # Errors
/// Exit code 1 when one of them failed.
pub async fn run(args: Args, out: Output) -> Result {
    let password = read_password()?;
    let mut browser = Browser { base: args.base.clone(), cookies: Vec::new(), csrf: String::new() };
    let mut steps = Vec::new();
    let walked = walk(&args, &password, &mut browser, &mut steps).await;
    if let Err((name, detail)) = walked {
        steps.push(Step { name, ok: false, detail: clean(&detail, DETAIL_CHARS) });
    }
    let ok = steps.iter().all(|step| step.ok);
    if out.json {
        out.document(&json!({ "ok": ok, "steps": steps }))?;
    } else {
        for step in &steps {
            let word = if step.ok { styled(GREEN, "ok    ") } else { styled(RED, "failed") };
            out.line(format!("{word} {}: {}", step.name, step.detail))?;
        }
    }
    if ok { Ok(()) } else { Err(Failure::quiet(FAILED)) }
}

async fn walk(
    args: &Args,
    password: &str,
    browser: &mut Browser,
    steps: &mut Vec<Step>,
) -> std::result::Result<(), (&'static str, String)> {
    let mut done = |name: &'static str, seen: std::result::Result<String, String>| match seen {
        Ok(detail) => {
            steps.push(Step { name, ok: true, detail: clean(&detail, DETAIL_CHARS) });
            Ok(())
        }
        Err(problem) => Err((name, problem)),
    };
    let body = json!({"user": args.user, "password": password}).to_string();
    let answer = browser.ask("POST", "/auth/login", &body, 200).await;
    done("login", answer.map(|answer| format!("as {}", role_of(&answer))))?;
    done("protected page", browser.ask("GET", "/auth/sessions", "", 200).await.map(|_| "/auth/sessions".to_owned()))?;
    let stranger = Browser { base: browser.base.clone(), cookies: Vec::new(), csrf: String::new() };
    let refused = stranger.send("GET", "/auth/sessions", "", 401).await;
    done("the same without a session", refused.map(|_| "refused".to_owned()))?;
    let before = browser.cookies.clone();
    let renewed = browser.ask("POST", "/auth/refresh", "", 200).await;
    let renewed = renewed.and_then(|_| {
        if browser.cookies == before {
            Err("the cookies stayed as they were".to_owned())
        } else {
            Ok("new cookies".to_owned())
        }
    });
    done("refresh", renewed)?;
    if let Some(metrics) = &args.metrics {
        let page = rest::page(metrics, "/metrics").await;
        let counted = page.and_then(|page| {
            let line = page
                .lines()
                .find(|line| line.starts_with("auth_login_total{") && line.contains("\"ok\"") && !line.ends_with(" 0"));
            line.map(str::to_owned).ok_or_else(|| "auth_login_total has no login".to_owned())
        });
        done("metrics", counted)?;
    }
    done("logout", browser.ask("POST", "/auth/logout", "", 204).await.map(|_| "the session is over".to_owned()))?;
    Ok(())
}

fn role_of(answer: &Answer) -> String {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    body["role"].as_str().unwrap_or("?").to_owned()
}

/// Cookies and the value against forged requests.
struct Browser {
    base: String,
    cookies: Vec<(String, String)>,
    csrf: String,
}

impl Browser {
    /// Keeps what the answer gives to keep.
    async fn ask(&mut self, method: &str, path: &str, body: &str, wanted: u16) -> std::result::Result<Answer, String> {
        let answer = self.send(method, path, body, wanted).await?;
        for (_, cookie) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let pair = cookie.split(';').next().and_then(|pair| pair.split_once('='));
            if let Some((name, value)) = pair {
                self.cookies.retain(|(own, _)| own != name);
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        if let Some(csrf) =
            serde_json::from_str::<Value>(&answer.body).ok().and_then(|body| Some(body["csrf"].as_str()?.to_owned()))
        {
            self.csrf = csrf;
        }
        Ok(answer)
    }

    async fn send(&self, method: &str, path: &str, body: &str, wanted: u16) -> std::result::Result<Answer, String> {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = cookies.join("; ");
        let mut headers = vec![("x-af-csrf", self.csrf.as_str())];
        if !cookies.is_empty() {
            headers.push(("Cookie", &cookies));
        }
        let answer = rest::exchange(&self.base, method, path, &headers, body, ANSWER_MAX).await?;
        if answer.status == wanted { Ok(answer) } else { Err(format!("{} {}", answer.status, answer.body.trim())) }
    }
}

fn read_password() -> Result<String> {
    let mut stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        return Err(Failure::usage("the password is read from standard input, which is a terminal and would show it")
            .hint("redirect a file: < password.txt"));
    }
    let mut text = String::new();
    stdin.by_ref().take(INPUT_BYTES_MAX).read_to_string(&mut text).map_err(|e| Failure::new(e.to_string()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
