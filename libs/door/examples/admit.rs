//! What letting a caller in costs: `cargo run --release -p agentforge-door --example admit`.
//!
//! One thread, one address; each figure is the mean of the fastest of five rounds. A JSON Web Token's signature is checked
//! at its first request, and remembered.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for a person, on data of its own")]

use agentforge_access::{Guard, Issuer, KeySet, Keyring, Role, Scopes, TokenFile, digest, now};
use agentforge_door::{Door, DoorConfig, Shown};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use std::time::{Duration, Instant};

const TOKENS: usize = 1_000;
const CALLS: usize = 20_000;
const FIRST_CALLS: usize = 2_000;
const URL: &str = "https://login.example";

struct Signer {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self {
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
        }
    }

    fn keys(&self) -> KeySet {
        let point = self.ec.public_key().as_ref();
        let (x, y, ed) = (b64(&point[1..33]), b64(&point[33..]), b64(self.ed.public_key()));
        let jwks = format!(
            r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"{ed}"}},{{"kty":"EC","crv":"P-256","kid":"ec","x":"{x}","y":"{y}"}}]}}"#
        );
        KeySet::parse(jwks.as_bytes()).unwrap()
    }

    fn token(&self, algorithm: &str, n: usize) -> String {
        let header = format!(r#"{{"alg":"{algorithm}","kid":"{}"}}"#, if algorithm == "ES256" { "ec" } else { "ed" });
        let end = now() + 3_600;
        let claims = format!(
            r#"{{"iss":"{URL}","aud":"urn:agentforge","sub":"caller","jti":"{n}","exp":{end},"groups":["ops","devs"]}}"#
        );
        let signed = format!("{}.{}", b64(header), b64(claims));
        let signature = match algorithm {
            "ES256" => b64(self.ec.sign(&SystemRandom::new(), signed.as_bytes()).unwrap()),
            _ => b64(self.ed.sign(signed.as_bytes())),
        };
        format!("{signed}.{signature}")
    }
}

fn headers(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap())])
}

/// Microseconds per call: the fastest of five rounds.
async fn cost(door: &Door, given: &[HeaderMap], rounds: usize) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..rounds {
        let begun = Instant::now();
        for headers in given {
            door.admit(&Shown::new(Some([192, 0, 2, 1].into()), headers), Role::Read).await.unwrap();
        }
        best = best.min(begun.elapsed());
    }
    best.as_secs_f64() * 1e6 / given.len() as f64
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let signer = Signer::new();
    let issuer = Issuer {
        url: URL.into(),
        audience: "urn:agentforge".into(),
        skew: 30,
        role_claim: "groups".into(),
        roles: vec![("ops".into(), Role::Operator)],
        scope_claim: None,
    };
    let line = |n: usize| {
        let scopes = Scopes::parse(["queue:a", "tool:echo"]).unwrap();
        TokenFile::line(&format!("caller-{n}"), Role::Submit, &digest(format!("token-{n}-0123456789")), None, &scopes)
    };
    let file: Vec<String> = (0..TOKENS).map(line).collect();
    let keyring = Keyring::new(Default::default(), vec![issuer]);
    keyring.replace(&TokenFile::parse(&file.join("\n")).unwrap()).unwrap();
    keyring.set_keys(0, signer.keys());
    let config = DoorConfig {
        guard: Guard::Keyring(keyring),
        caller_rate: 1_000_000,
        address_rate: 1_000_000,
        lockout_after: 10,
        ..DoorConfig::open()
    };
    let door = Door::new(config);
    let tokens: Vec<_> = (0..CALLS).map(|n| headers(&format!("token-{}-0123456789", n % TOKENS))).collect();
    println!("token of a file of {TOKENS}:              {:6.2} µs", cost(&door, &tokens, 5).await);
    for algorithm in ["EdDSA", "ES256"] {
        let first: Vec<_> = (0..FIRST_CALLS).map(|n| headers(&signer.token(algorithm, n))).collect();
        println!("JSON Web Token, {algorithm}, first request: {:6.2} µs", cost(&door, &first, 1).await);
        println!("JSON Web Token, {algorithm}, remembered:    {:6.2} µs", cost(&door, &first, 5).await);
    }
}
