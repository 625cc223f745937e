//! Tokens as issuers make them, and as those who are none would like them.

use super::*;
use crate::role::Role;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::json;

const NOW: i64 = 1_800_000_000;
const URL: &str = "https://login.example/realms/a";

struct Signer {
    id: &'static str,
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    fn new(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self {
            id,
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
        }
    }

    fn jwks(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": self.id, "use": "sig", "alg": "EdDSA", "x": b64(self.ed.public_key())},
            {"kty": "EC", "crv": "P-256", "kid": format!("{}-ec", self.id), "x": b64(&point[1..33]), "y": b64(&point[33..])},
            {"kty": "oct", "kid": "hmac", "k": b64("0123456789abcdef")},
            {"kty": "OKP", "crv": "Ed25519", "kid": "for-encryption", "use": "enc", "x": b64(self.ed.public_key())},
        ]})
    }

    fn keys(&self) -> KeySet {
        KeySet::parse(self.jwks().to_string().as_bytes()).unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = match header["alg"].as_str() {
            Some("ES256") => b64(self.ec.sign(&SystemRandom::new(), signed.as_bytes()).unwrap()),
            Some("none") => String::new(),
            _ => b64(self.ed.sign(signed.as_bytes())),
        };
        format!("{signed}.{signature}")
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "EdDSA", "kid": self.id}), claims)
    }
}

fn issuer() -> Issuer {
    Issuer {
        url: URL.into(),
        audience: "agentforge".into(),
        skew: 30,
        role_claim: "realm_access.roles".into(),
        roles: vec![
            ("af-ops".into(), Role::Operator),
            ("af-read".into(), Role::Read),
            ("af-alerts".into(), Role::Alerts),
        ],
        scope_claim: None,
    }
}

fn claims() -> Value {
    json!({
        "iss": URL, "aud": ["account", "agentforge"], "sub": "alice", "jti": "t-1", "iat": NOW, "exp": NOW + 300,
        "realm_access": {"roles": ["other", "af-read", "af-ops"]},
    })
}

fn with(claim: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[claim] = value;
    claims
}

fn reason(token: &str, issuer: Issuer, keys: KeySet, denials: &Denials, now: i64) -> &'static str {
    match verify(token.as_bytes(), &[(issuer, keys)], denials, now) {
        Ok(_) => "ok",
        Err(denied) => denied.as_str(),
    }
}

#[test]
fn a_token_of_the_issuer_is_its_subject_with_the_strongest_of_its_roles() {
    let signer = Signer::new("k1");
    let ends = NOW + 330;
    let principal = Principal { name: "alice@login.example".into(), role: Role::Operator, scopes: Default::default() };
    for header in [
        json!({"alg": "EdDSA", "kid": "k1", "typ": "at+jwt"}),
        json!({"alg": "ES256", "kid": "k1-ec"}),
        json!({"alg": "ES256"}),
    ] {
        let token = signer.sign(&header, &claims());
        let verified = verify(token.as_bytes(), &[(issuer(), signer.keys())], &Denials::default(), NOW).unwrap();
        assert_eq!(verified, Verified { principal: principal.clone(), ends }, "{header}");
    }
}

#[test]
fn what_is_not_right_is_refused_with_its_reason() {
    let (signer, stranger) = (Signer::new("k1"), Signer::new("k1"));
    let other = Signer::new("k2");
    let good = signer.token(&claims());
    let (payload, mangled) = (b64(with("sub", json!("root")).to_string()), good.rsplit_once('.').unwrap());
    let header = good.split('.').next().unwrap();
    let table: Vec<(String, &str)> = vec![
        (good.clone(), "ok"),
        (stranger.token(&claims()), "jwt_signature"),
        (other.token(&claims()), "jwt_key"),
        (format!("{header}.{payload}.{}", mangled.1), "jwt_signature"),
        (format!("{}.", mangled.0), "jwt_signature"),
        (signer.sign(&json!({"alg": "none"}), &claims()), "jwt_algorithm"),
        (signer.sign(&json!({"alg": "HS256", "kid": "k1"}), &claims()), "jwt_algorithm"),
        (signer.sign(&json!({"alg": "HS256", "kid": "hmac"}), &claims()), "jwt_algorithm"),
        (signer.sign(&json!({"alg": "eddsa", "kid": "k1"}), &claims()), "jwt_algorithm"),
        // The key of one algorithm under another's name.
        (signer.sign(&json!({"alg": "ES256", "kid": "k1"}), &claims()), "jwt_algorithm"),
        (signer.sign(&json!({"alg": "RS256", "kid": "k1"}), &claims()), "jwt_algorithm"),
        (signer.sign(&json!({"alg": "EdDSA", "kid": "for-encryption"}), &claims()), "jwt_key"),
        (signer.sign(&json!({"alg": "EdDSA", "kid": "k1", "crit": ["b64"]}), &claims()), "jwt_malformed"),
        (signer.token(&with("iss", json!("https://evil.example"))), "jwt_issuer"),
        (signer.token(&with("iss", json!(format!("{URL}/")))), "jwt_issuer"),
        (signer.token(&with("aud", json!("account"))), "jwt_audience"),
        (signer.token(&with("aud", Value::Null)), "jwt_audience"),
        (signer.token(&with("exp", Value::Null)), "jwt_malformed"),
        (signer.token(&with("exp", json!("tomorrow"))), "jwt_malformed"),
        (signer.token(&with("exp", json!(NOW - 30))), "expired"),
        (signer.token(&with("exp", json!(NOW - 29))), "ok"),
        (signer.token(&with("nbf", json!(NOW + 31))), "jwt_not_yet"),
        (signer.token(&with("nbf", json!(NOW + 30))), "ok"),
        (signer.token(&with("iat", json!(NOW + 31))), "jwt_not_yet"),
        (signer.token(&with("realm_access", json!({"roles": ["other"]}))), "jwt_no_role"),
        (signer.token(&with("realm_access", json!("af-ops"))), "jwt_no_role"),
        ("ey.ey.ey".to_owned(), "jwt_malformed"),
        (format!("ey{}.a.b", "a".repeat(JWT_BYTES_MAX)), "jwt_malformed"),
    ];
    for (token, want) in table {
        assert_eq!(reason(&token, issuer(), signer.keys(), &Denials::default(), NOW), want, "{token}");
    }
}

#[test]
fn a_denied_token_and_a_denied_subject_are_revoked() {
    let signer = Signer::new("k1");
    let token = signer.token(&claims());
    for (tokens, subjects, want) in [("t-1", "", "jwt_revoked"), ("", "alice", "jwt_revoked"), ("t-2", "bob", "ok")] {
        let set = |word: &str| HashSet::from([word.to_owned()]);
        let denials = Denials { tokens: set(tokens), subjects: set(subjects) };
        assert_eq!(reason(&token, issuer(), signer.keys(), &denials, NOW), want);
    }
}

#[test]
fn scopes_come_from_their_claim_and_its_absence_is_nothing() {
    let signer = Signer::new("k1");
    let scoped = Issuer { scope_claim: Some("https://agentforge/scopes".into()), ..issuer() };
    for (value, want) in [
        (json!(["queue:a", "tool:echo"]), Ok("queue:a tool:echo")),
        (json!("queue:a tool:echo"), Ok("queue:a tool:echo")),
        (json!("*"), Ok("")),
        (Value::Null, Err("jwt_no_scopes")),
        (json!([]), Err("jwt_no_scopes")),
        (json!(["openid"]), Err("jwt_no_scopes")),
    ] {
        let token = signer.token(&with("https://agentforge/scopes", value.clone()));
        let found = verify(token.as_bytes(), &[(scoped.clone(), signer.keys())], &Denials::default(), NOW);
        let found = found.map(|v| v.principal.scopes.to_string()).map_err(|denied| denied.as_str());
        assert_eq!(found, want.map(str::to_owned), "{value}");
    }
}

#[test]
fn what_was_verified_is_remembered_until_its_end_or_a_change() {
    let remembered = Remembered::default();
    let verified = Verified { principal: Principal::anyone(), ends: 100 };
    remembered.put([1; 32], 7, verified.clone(), 0);
    assert!(remembered.get(&[1; 32], 7, 99).is_some());
    assert!(remembered.get(&[1; 32], 7, 100).is_none() && remembered.get(&[1; 32], 8, 99).is_none());
    for n in 0..REMEMBERED_MAX as u32 + 10 {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&n.to_be_bytes());
        remembered.put(digest, 7, verified.clone(), 0);
    }
    assert!(remembered.0.lock().unwrap().len() <= REMEMBERED_MAX);
}
