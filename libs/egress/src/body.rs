//! Reading a response's body without trusting its size.
//!
//! Never holds more than the cap and one chunk; what its header claims is not believed.

/// What was read of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// At most the cap.
    pub bytes: Vec<u8>,
    /// Whether there was more.
    pub truncated: bool,
}

/// Reads at most `cap` bytes of the body, then drops the connection.
///
/// # Errors
/// What the connection says; the response's total timeout still runs.
pub async fn read_body_capped(mut response: reqwest::Response, cap: usize) -> Result<Body, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = cap - bytes.len();
        if chunk.len() > room {
            bytes.extend_from_slice(&chunk[..room]);
            return Ok(Body { bytes, truncated: true });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body { bytes, truncated: false })
}
