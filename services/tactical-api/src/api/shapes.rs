//! The shapes of what is published, for the OpenAPI document.
//!
//! Markers and zones are read field by field from untrusted text (see `sanitise`), so their shapes are written here; a
//! test sends what they describe.

use serde::Deserialize;
use utoipa::ToSchema;

/// What marker and zone have in common.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "a shape for the document; values are read by their own rules")]
pub struct Described {
    /// 1 to 128 printable characters. Without one, an id is made.
    #[schema(example = "truck-7")]
    id: Option<String>,
    /// Where it was reported; the server's own site, when it is not said.
    #[schema(example = "pier-7")]
    site: Option<String>,
    /// At most 256 characters.
    #[schema(example = "Road closed")]
    title: String,
    /// At most 1024 characters.
    description: Option<String>,
    /// low (the default), medium, high or critical.
    severity: Option<String>,
    /// RFC 3339; now, when it is not said.
    #[schema(format = DateTime)]
    observed_at: Option<String>,
    /// RFC 3339; it is removed then.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// `<site>/<sha256>` of a file, or the alias that it was delivered with.
    evidence_id: Option<String>,
}

/// A marker as it is published: a thing at one place.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "a shape for the document; values are read by their own rules")]
pub struct MarkerRequest {
    #[serde(flatten)]
    described: Described,
    /// Longitude and latitude in degrees.
    #[schema(example = json!([13.3777, 52.5163]), min_items = 2, max_items = 2)]
    coordinates: Vec<f64>,
}

/// A zone as it is published: an area with an outline.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "a shape for the document; values are read by their own rules")]
pub struct ZoneRequest {
    #[serde(flatten)]
    described: Described,
    /// One ring of [longitude, latitude], or a list of rings: the outline, then holes.
    polygon: PolygonRequest,
}

/// The places of a zone's corners, in degrees.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a shape for the document; values are read by their own rules")]
pub enum PolygonRequest {
    /// The outline, as [longitude, latitude] of each corner.
    Ring(Vec<Vec<f64>>),
    /// The outline, and then the holes in it.
    Rings(Vec<Vec<Vec<f64>>>),
}
