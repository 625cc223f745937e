//! An OpenID provider as the console asks it: discovery, and tokens for a code.

use agentforge_config::{ExposeSecret, Secret};
use axum::http::header;
use serde::Deserialize;
use std::time::Duration;
use url::{Url, form_urlencoded};

/// For one answer of the provider.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Longest answer, bytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// The provider, and what it knows the console as.
#[derive(Clone, Debug)]
pub struct OidcConfig {
    /// As ACCESS_ISSUERS has it.
    pub issuer: String,
    /// The console's name there.
    pub client: String,
    /// Its secret, where it has one.
    pub secret: Option<Secret>,
    /// What is asked for.
    pub scope: String,
    /// Whom the token is for.
    pub resource: Option<String>,
    /// What the login page calls it.
    pub name: String,
}

/// The login by a provider.
#[derive(Clone, Debug)]
pub(super) struct Oidc {
    pub(super) config: OidcConfig,
    client: reqwest::Client,
}

/// Where the provider does what.
#[derive(Deserialize)]
pub(super) struct Discovery {
    issuer: String,
    /// Where people log in.
    pub(super) authorization_endpoint: Url,
    token_endpoint: Url,
}

/// What a code is exchanged for.
#[derive(Deserialize)]
pub(super) struct Tokens {
    /// For services.
    pub(super) access_token: Option<String>,
    /// For the console.
    pub(super) id_token: Option<String>,
}

impl Oidc {
    /// A client of it.
    pub(super) fn new(config: OidcConfig) -> Result<Self, reqwest::Error> {
        let client =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(ANSWER_MAX);
        Ok(Self { config, client: client.build()? })
    }

    /// What the login page calls it.
    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    /// Its addresses, of now.
    pub(super) async fn discovery(&self) -> Result<Discovery, String> {
        let at = format!("{}/.well-known/openid-configuration", self.config.issuer.trim_end_matches('/'));
        let text = self.body(self.client.get(at)).await?;
        let found: Discovery = serde_json::from_slice(&text).map_err(|e| format!("its discovery document: {e}"))?;
        if found.issuer == self.config.issuer {
            Ok(found)
        } else {
            Err("its discovery document is another issuer's".to_owned())
        }
    }

    /// Exchanges the code of a login.
    pub(super) async fn tokens(&self, code: &str, verifier: &str, redirect: &str) -> Result<Tokens, String> {
        let form = self.form(code, verifier, redirect);
        let request = self.client.post(self.discovery().await?.token_endpoint);
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        serde_json::from_slice(&self.body(request).await?).map_err(|e| format!("its tokens: {e}"))
    }

    fn form(&self, code: &str, verifier: &str, redirect: &str) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", redirect)
            .append_pair("client_id", &self.config.client)
            .append_pair("code_verifier", verifier);
        if let Some(secret) = &self.config.secret {
            form.append_pair("client_secret", secret.expose_secret());
        }
        if let Some(resource) = &self.config.resource {
            form.append_pair("resource", resource);
        }
        form.finish()
    }

    async fn body(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, String> {
        let mut answer = request.send().await.map_err(|e| e.without_url().to_string())?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| e.without_url().to_string())? {
            body.extend_from_slice(&piece);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(format!("its answer has more than {ANSWER_BYTES_MAX} bytes"));
            }
        }
        if status.is_success() { Ok(body) } else { Err(format!("it answered {status}")) }
    }
}
